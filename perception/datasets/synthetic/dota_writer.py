"""Writes pictures with rotated boxes as an ordinary DOTA data set.

The layout of each split, for instance `train`::

    train/images/train_000000.png
    train/labelTxt/train_000000.txt    as DOTA is published: two header lines, then one object per line
    train/annfiles/train_000000.txt    the same objects without the header, as DOTA's image splitters write them

The splitter reads `labelTxt`, MMRotate's `DOTADataset` reads `annfiles`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from perception.datasets.dota import Labels, format_labels


class DotaWriter:
    """Collects one split of a data set.

    Args:
        root: the data set's folder.
        split: for instance `train`.
        source, gsd: what the header lines say: where the pictures are from and metres per pixel.
    """

    def __init__(self, root: Path, split: str, *, source: str, gsd: float):
        self._folder = root / split
        self._split = split
        self._header = f"imagesource:{source}\ngsd:{gsd}\n"
        self._images = self._instances = 0
        for name in ("images", "labelTxt", "annfiles"):
            (self._folder / name).mkdir(parents=True)

    def add(self, image: np.ndarray, corners: np.ndarray, classes: Sequence[str], difficult: Sequence[bool]) -> None:
        """Write one picture and its N objects.

        Args:
            image: `uint8` `[H, W, 3]` RGB.
            corners: `[N, 4, 2]` pixels (x, y), clockwise as seen.
            classes: N class names.
            difficult: N flags of objects that evaluation leaves out.
        """
        name = f"{self._split}_{self._images:06d}"
        _, encoded = cv2.imencode(".png", image[..., ::-1])
        (self._folder / "images" / f"{name}.png").write_bytes(encoded.tobytes())
        lines = format_labels(Labels(corners, tuple(classes), tuple(int(flag) for flag in difficult)))
        (self._folder / "labelTxt" / f"{name}.txt").write_text(self._header + lines)
        (self._folder / "annfiles" / f"{name}.txt").write_text(lines)
        self._images += 1
        self._instances += len(corners)

    def finish(self) -> dict[str, int]:
        """The numbers of images and instances."""
        return {"images": self._images, "instances": self._instances}
