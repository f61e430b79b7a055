"""Editing training scenes beforehand: every view by every prompt, into the folders that training reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from nerfstudio.utils.colors import get_color

from perception.engine.atomic import output_folder
from perception.studio.datamanager import BackgroundDataset
from perception.studio.errors import SceneError
from perception.studio.images import LazyPixelStore
from perception.studio.parsers import SceneReader
from perception.studio.progress import progress_bar
from projects.dn2n.bank import SceneSpan, SourceBank
from projects.dn2n.captions import CaptionProvider
from projects.dn2n.editing import LITTLE, Edit, EditRequest, cache_key, edit_scene
from projects.dn2n.editors import ImageEditor
from projects.dn2n.filtering import Embedding
from projects.dn2n.offline import FOLDER, read_prompts, view_names, write_offline_edit
from projects.dn2n.scenes_dataparser import ScenesDataParserConfig

REPAINTED = 0.04
"""Common shift of the colours from which it is said that an edit repaints a scene. The perturbations that training
draws instead of edits have 0.005 to 0.026 on the built-in scenes."""


@dataclass
class TrainingViews:
    """The training views of a scene whose images can be read."""

    folder: Path
    bank: SourceBank  # of this scene alone
    numbers: list[int]  # of the views, among all of the scene
    names: list[str]  # of the views, by which their edits are named
    faults: list[str]  # of the images that cannot be read, one sentence each


def read_training_views(name: str, reader: SceneReader, background: torch.Tensor) -> TrainingViews:
    """The training views of a scene, as training reads them, but for those whose images cannot be read.

    Args:
        name: of the scene.
        reader: of it.
        background: (3,) behind transparent pixels.

    Raises:
        SceneError: the scene cannot be read, fewer than three of its views can be, or its edits could not be found.
    """
    folder, outputs = Path(reader.config.data), reader.get_dataparser_outputs("train")
    if not folder.is_dir():
        raise SceneError(f"{folder} is a file: edits lie in a scene's folder, which --data must name")
    names = view_names(folder, outputs.image_filenames)
    everything, numbers, faults = BackgroundDataset(outputs, background=background), [], []
    for number in range(len(outputs.image_filenames)):
        try:
            everything.get_numpy_image(number)
        except SceneError as error:
            faults.append(str(error))
        else:
            numbers.append(number)
    if not numbers:
        raise SceneError(f"no training image of {folder} can be read: {faults[0]}")
    readable = replace(
        outputs,
        image_filenames=[outputs.image_filenames[number] for number in numbers],
        cameras=outputs.cameras[torch.tensor(numbers)],
        mask_filenames=None,
    )
    pixels = LazyPixelStore(BackgroundDataset(readable, background=background), need_alpha=False, keep=1)
    span = SceneSpan(name, 0, len(numbers), 1.0, 2.0)  # nothing is rendered: any range does
    bank = SourceBank(pixels, readable.cameras, background, [span])
    return TrainingViews(folder, bank, numbers, [names[number] for number in numbers], faults)


def edit_training_views(
    data: Path,
    requests: Sequence[EditRequest],
    editor: ImageEditor,
    embedding: Embedding,
    cache: Path | None,
    captions: CaptionProvider | None,
) -> Iterator[str]:
    """Edit the training views of scenes, and write what is kept into their folders; gives lines about them.

    Args:
        data: folder of a scene, or of several.
        requests: one for each prompt, alike in all else.
        editor: of the requests.
        embedding: of the filter.
        cache: folder of edited images; by default one in each scene's folder.
        captions: says of the first view of each scene what the requests' source caption says otherwise.

    Raises:
        UserError: a scene cannot be read, or its folder not be written.
    """
    parser = ScenesDataParserConfig(data=data)
    background = get_color(parser.alpha_color).float()
    scenes = [read_training_views(name, reader, background) for name, reader in parser.setup().readers.items()]
    for scene in scenes:  # before time is spent
        read_prompts(scene.folder)
        output_folder(scene.folder / FOLDER)
        for fault in scene.faults:
            yield f"warning: {scene.folder.name}: {fault}; the view is left out"
    for scene in scenes:
        for request in requests:
            if captions is not None:
                request = replace(request, source_caption=captions.caption(scene.bank.image(0)))
            yield from _edit(scene, request, editor, embedding, cache or scene.folder / FOLDER / "cache")


def _edit(
    scene: TrainingViews, request: EditRequest, editor: ImageEditor, embedding: Embedding, cache: Path
) -> Iterator[str]:
    name, bank = edit_id(request, editor), scene.bank
    with progress_bar(f"{scene.folder.name}: {request.prompt}", len(scene.numbers)) as advance:
        edit = edit_scene(bank, 0, request, editor, embedding, cache, advance, numbers=scene.numbers)
    write_offline_edit(scene.folder, _entry(name, request), _pictures(edit, scene.names))
    yield (
        f"{scene.folder / FOLDER / name}: {len(edit.selection.keep)} of {len(scene.names)} views kept, changed by "
        f"{edit.mean_change:.3f} on average, from {request.source_caption!r} to {request.prompt!r}"
    )
    if edit.mean_change < LITTLE:
        yield f"warning: the edit hardly changes the images (below {LITTLE}): training has little to learn from it"
    shift = common_shift(edit)
    if shift > REPAINTED:
        yield (
            f"warning: the edit repaints the scene (colours are shifted by {shift:.3f} on average), but training's "
            "targets are its photographs: prompts should say the same as the source caption"
        )


def common_shift(edit: Edit) -> float:
    """How far the mean colour of all views together is from that of the originals: noise between views averages out."""
    return float((edit.images - edit.originals).mean((0, 2, 3)).abs().mean())


def edit_id(request: EditRequest, editor: ImageEditor) -> str:
    """Name of an edit's folder: words of the prompt, and a hash of all that the edit of an image depends on."""
    words = "-".join(re.findall(r"\w+", request.prompt.lower()))[:40].strip("-")
    return f"{words or editor.name}-{cache_key('', 0, request.seed, request, editor)[:8]}"


def _entry(name: str, request: EditRequest) -> dict:
    settings = {**asdict(request.editor), "weights": str(request.editor.weights)}
    return {
        "id": name,
        "source_caption": request.source_caption,
        "target_caption": request.prompt,
        "editor": settings.pop("name"),
        "seed": request.seed,
        "settings": settings,
    }


def _pictures(edit: Edit, names: Sequence[str]) -> dict[str, torch.Tensor | None]:
    kept = set(edit.selection.keep.tolist())
    return {name: edit.images[view] if view in kept else None for view, name in enumerate(names)}
