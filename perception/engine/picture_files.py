"""Names of the pictures that are drawn while a model is tested: those of the images, none used twice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath

from mmengine.runner import Runner

_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


def picture_files(images: Sequence[str], folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Where the picture of each image goes: below `folder` in the images' tree, from what all of them share on.

    An image that is not a JPEG or PNG file gets `.jpg` added to its name, and more of the same where that is the name
    of another one.

    Args:
        images: paths of all images of a test.
        folder: where the pictures go.
    """
    paths = {image: os.path.abspath(image) for image in images}
    folders = {os.path.dirname(path) for path in paths.values()}
    root = os.path.commonpath(folders) if folders else ""
    files = {image: PurePath(os.path.relpath(path, root)) for image, path in paths.items()}
    kept = {image: file for image, file in files.items() if file.suffix.lower() in _PICTURE_SUFFIXES}
    taken = set(kept.values())
    for image in sorted(files.keys() - kept.keys()):
        file = files[image]
        while file in taken or file.suffix.lower() not in _PICTURE_SUFFIXES:
            file = file.with_name(f"{file.name}.jpg")
        taken.add(file)
        kept[image] = file
    return {image: Path(folder, kept[image]) for image in images}


def tested_images(runner: Runner) -> list[str]:
    """Paths of all images of a runner's test data set."""
    dataset = runner.test_dataloader.dataset
    return [dataset.get_data_info(index)["img_path"] for index in range(len(dataset))]
