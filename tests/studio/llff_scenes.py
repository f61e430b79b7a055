"""A small scene in LLFF layout, and ways to spoil it."""

from pathlib import Path

import numpy as np
from PIL import Image

from perception.datasets.synthetic import shelves
from perception.studio.llff_dataparser import LLFFDataParserConfig
from perception.studio.parsers import read_by

PARAMS = shelves.Params(views=12, width=24, height=16, scale=4)
LARGE = (96, 64)  # `images`; `images_4` holds 24 x 16


def read(folder: Path, split: str = "train", **options):
    """The outputs of the data parser."""
    return read_by(LLFFDataParserConfig(data=folder, **options)).setup().get_dataparser_outputs(split)


def edit(folder: Path, change) -> None:
    """Change the table (N, 17) in place, or return another one."""
    table = np.load(folder / "poses_bounds.npy")
    changed = change(table)
    np.save(folder / "poses_bounds.npy", table if changed is None else changed)


def images(folder: Path, name: str = "images") -> list[Path]:
    """The images of a folder in the order of rows."""
    return sorted((folder / name).iterdir())


def resize(folder: Path, name: str, size: tuple[int, int]) -> None:
    """Give all images of a folder another size."""
    for path in images(folder, name):
        Image.open(path).resize(size, Image.Resampling.BOX).save(path)
