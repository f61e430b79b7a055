"""Image folders of LLFF scenes, and which file belongs to which row of `poses_bounds.npy`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nerfstudio.utils.rich_utils import CONSOLE

from perception.studio.errors import SceneError
from perception.studio.findings import counted
from perception.studio.image_files import SUFFIXES

LISTS = ("poses_names.npy", "view_imgs.txt")
"""Files that name the image of each row, beside the table; the first one that is there counts."""
SHOWN = 4  # names that a sentence spells out


@dataclass(frozen=True)
class ImageFolder:
    """A folder of all images at one size.

    ``factor`` is how many times smaller than `poses_bounds.npy` says they are by the folder's name.
    """

    path: Path
    factor: int
    files: tuple[Path, ...]
    """One for each row."""


def find_folders(scene: Path, width: float) -> dict[int, Path]:
    """The image folders of a scene by factor: `images` (1), `images_4`, `images_1008x756` for a ``width`` of 4032."""
    found: dict[int, Path] = {}
    for path in sorted(scene.glob("images_*")):
        if path.is_dir() and (match := re.fullmatch(r"images_(\d+)x(\d+)", path.name)) and int(match[1]):
            found[max(1, round(width / int(match[1])))] = path
    for path in sorted(scene.glob("images_*")):
        if path.is_dir() and (match := re.fullmatch(r"images_([1-9]\d*)", path.name)):
            found[int(match[1])] = path
    if (scene / "images").is_dir():
        found[1] = scene / "images"
    return found


def folder_of(scene: Path, folders: dict[int, Path], factor: int) -> Path:
    """The folder of images that are ``factor`` times smaller.

    Raises:
        SceneError: there is none.
    """
    if factor in folders:
        return folders[factor]
    name = "images" if factor == 1 else f"images_{factor}"
    have = ", ".join(path.name for _, path in sorted(folders.items())) or "no folder of images"
    wish = ", ".join(f"--downscale-factor {known}" for known in sorted(folders))
    choose = f"choose {wish} after `llff-data`, or make" if folders else "make"
    smaller = (
        "them"
        if factor == 1
        else f"images that are {factor} times smaller (tools/dataset_converters/shrink_images.py makes them)"
    )
    raise SceneError(f"{scene} has no {name}, but {have}: {choose} {smaller}")


def read_names(scene: Path, count: int) -> list[str] | None:
    """The names of the images of all rows where a file lists them.

    Raises:
        SceneError: the list has another length, or cannot be read.
    """
    path = next((scene / name for name in LISTS if (scene / name).is_file()), None)
    if path is None:
        return None
    try:
        if path.suffix == ".npy":
            listed = np.load(path, allow_pickle=False).reshape(-1)
            names = [name.decode() if isinstance(name, bytes) else str(name) for name in listed.tolist()]
        else:
            names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError, EOFError) as error:
        raise SceneError(f"cannot read {path}: {error}") from None
    names = [Path(name.replace("\\", "/")).name for name in names]
    if len(names) != count:
        raise SceneError(f"{path} names {len(names)} images, but poses_bounds.npy has {count} rows")
    if len(set(names)) < count:
        raise SceneError(f"{path} names an image twice")
    return names


def match_files(
    folder: Path, factor: int, count: int, names: Sequence[str] | None, others: Sequence[Path]
) -> ImageFolder:
    """Which file of a folder belongs to which row: the one that the list names, with whatever suffix; without a list,
    or in a folder whose files were renumbered, the one at the same place in the order of names.

    Args:
        folder: of images.
        factor: how many times smaller these are.
        count: of rows.
        names: from :func:`read_names`.
        others: the scene's other folders of images, by which surplus files are told.

    Raises:
        SceneError: rows and files do not go together.
    """
    files = list_files(folder)
    by_stem = {path.stem.lower(): path for path in files}
    if len(by_stem) < len(files):
        raise SceneError(f"{folder} holds several files of one name with different suffixes, as {_twice(files)}")
    if names is not None:
        stems = [Path(name).stem.lower() for name in names]
        missing = [name for name, stem in zip(names, stems) if stem not in by_stem]
        if not missing:
            _say_surplus(folder, [path for path in files if path.stem.lower() not in stems])
            return ImageFolder(folder, factor, tuple(by_stem[stem] for stem in stems))
        if len(missing) < count or len(files) != count:
            raise SceneError(counted([f"{folder} has no image {name}, which is listed for a row" for name in missing]))
        order = sorted(range(count), key=lambda row: names[row])
        places = {row: place for place, row in enumerate(order)}
        return ImageFolder(folder, factor, tuple(files[places[row]] for row in range(count)))
    if len(files) != count:
        raise SceneError(_unequal(folder, files, count, others))
    return ImageFolder(folder, factor, tuple(files))


def list_files(folder: Path) -> list[Path]:
    """The images of a folder in the order of their names; what else lies there is said."""
    every = sorted(path for path in folder.iterdir() if path.is_file())
    files = [path for path in every if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    if ignored := [path.name for path in every if path not in files]:
        CONSOLE.log(f"[yellow]{folder}: not taken for images: {_some(ignored)}", highlight=False)
    if not files:
        raise SceneError(f"{folder} holds no images ({', '.join(SUFFIXES)})")
    return files


def _unequal(folder: Path, files: Sequence[Path], count: int, others: Sequence[Path]) -> str:
    sentence = f"{folder} holds {len(files)} images, but poses_bounds.npy has {count} rows"
    for other in others:
        kept = {path.stem.lower() for path in list_files(other)}
        surplus = [path.name for path in files if path.stem.lower() not in kept]
        if len(kept) == count and len(surplus) == len(files) - count:
            return f"{sentence}: {_some(surplus)} are not in {other.name}; remove them"
    return (
        f"{sentence}, so that nothing says which belong together ({files[0].name} to {files[-1].name}): remove the "
        f"images without a pose, or name those of all rows in {LISTS[1]}"
    )


def _say_surplus(folder: Path, surplus: Sequence[Path]) -> None:
    if surplus:
        names = _some([path.name for path in surplus])
        CONSOLE.log(f"[yellow]{folder}: {len(surplus)} images have no pose and are left out: {names}", highlight=False)


def _twice(files: Sequence[Path]) -> str:
    seen: dict[str, Path] = {}
    for path in files:
        if path.stem.lower() in seen:
            return f"{seen[path.stem.lower()].name} and {path.name}"
        seen[path.stem.lower()] = path
    raise AssertionError("every name is there once")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
