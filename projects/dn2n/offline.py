"""Edits of training scenes that any editor made beforehand: sources to train on, in place of imitated perturbations.

A scene's folder may hold ``edits/prompts.json``, a list of ``{"id": ..., "source_caption": ..., "target_caption": ...,
"editor": ..., "seed": ...}`` of which only ``id`` is needed, and for each of them ``edits/ID/VIEW.png``, named as the
training images. Views that a filter dropped are missing. `dn2n edit-training` makes such folders.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from perception.engine.atomic import output_folder, replacing
from perception.studio.errors import SceneError
from perception.studio.findings import counted
from perception.studio.image_files import look_at_all
from projects.dn2n.editing import load_image, save_image

FOLDER, PROMPTS = "edits", "prompts.json"


class OfflineEdits:
    """The edits of one scene.

    Args:
        prompts: their ids.
        files: of each of them, the edited image of each view, or none.
    """

    def __init__(self, prompts: Sequence[str], files: Sequence[Sequence[Path | None]]):
        self.prompts, self.files = list(prompts), [list(row) for row in files]

    @property
    def count(self) -> int:
        """Edited images in all."""
        return sum(path is not None for row in self.files for path in row)

    def put(self, images: Tensor, views: Sequence[int], number: int) -> Tensor:
        """Images (V, 3, H, W) of views, by their numbers within the scene, replaced where an edit has them."""
        files = [self.files[number][view] for view in views]
        return torch.stack([image if path is None else load_image(path) for image, path in zip(images, files)])


def read_offline_edits(scene: Path, images: Sequence[Path], size: tuple[int, int]) -> OfflineEdits | None:
    """The edits that lie in a scene's folder, if there are any.

    Args:
        scene: its folder.
        images: files of its training views.
        size: height and width of them.

    Raises:
        SceneError: the list of prompts is damaged, an edit has no image, or one of another size or that cannot be read.
    """
    listed = scene / FOLDER / PROMPTS
    if not listed.is_file():
        return None
    names = view_names(scene, images)
    prompts = [entry["id"] for entry in read_prompts(scene)]
    files = []
    for prompt in prompts:
        found = [scene / FOLDER / prompt / f"{name}.png" for name in names]
        files.append([path if path.is_file() else None for path in found])
        if not any(files[-1]):
            raise SceneError(
                f"{listed} names {prompt!r}, but {scene / FOLDER / prompt} has no {names[0]}.png or others"
            )
    faults = []
    for image in look_at_all([path for row in files for path in row if path is not None]):
        if image.fault:
            faults.append(image.fault)
        elif (image.height, image.width) != tuple(size):
            faults.append(f"{image.path} is {image.width} x {image.height} pixels, but its view {size[1]} x {size[0]}")
    if faults:
        raise SceneError(counted(faults))
    return OfflineEdits(prompts, files)


def view_names(scene: Path, images: Sequence[Path]) -> list[str]:
    """By which the edits of training images are named.

    Raises:
        SceneError: two images share theirs.
    """
    names = [path.stem for path in images]
    if len(set(names)) < len(names):
        raise SceneError(
            f"{scene / FOLDER}: the training images of {scene} share names in several folders, so that edits cannot be "
            "told apart by them"
        )
    return names


def read_prompts(scene: Path) -> list[dict]:
    """The edits that a scene's folder lists; none where there is no list.

    Raises:
        SceneError: the list is damaged.
    """
    listed = scene / FOLDER / PROMPTS
    if not listed.is_file():
        return []
    try:
        content = json.loads(listed.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SceneError(f"{listed} is not readable JSON: {error}") from None
    entries = content if isinstance(content, list) else [None]
    ids = [entry.get("id") if isinstance(entry, dict) else None for entry in entries]
    wrong = [name for name in ids if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name]
    if wrong or not ids or len(set(ids)) < len(ids):
        raise SceneError(
            f'{listed} must be a list of at least one {{"id": ...}}, each with another name of a folder beside it'
        )
    return entries


def write_offline_edit(scene: Path, entry: dict, pictures: dict[str, Tensor | None]) -> None:
    """Write an edit of a scene into its folder, and then list it beside those that are there.

    Args:
        scene: its folder.
        entry: what the list says of it; another one with its ``id`` is replaced.
        pictures: edited images (3, H, W) by the names of the views; none where an older one is to go.

    Raises:
        OutputError: the folder cannot be written.
        SceneError: the list that is there is damaged.
    """
    folder = output_folder(scene / FOLDER / entry["id"])
    for name, picture in pictures.items():
        path = folder / f"{name}.png"
        if picture is None:
            path.unlink(missing_ok=True)
        else:
            save_image(path, picture)
    others = [other for other in read_prompts(scene) if other["id"] != entry["id"]]
    with replacing(scene / FOLDER / PROMPTS) as file:
        file.write((json.dumps([*others, entry], indent=1) + "\n").encode())
