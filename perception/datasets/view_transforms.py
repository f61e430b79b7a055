"""Transforms of a panorama and a satellite tile that belong together.

``results`` hold ``ground`` and ``satellite``, uint8 (height, width, 3) RGB, or the satellite tile alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from mmengine.structures import BaseDataElement
from torchvision.transforms import v2

from perception.engine.errors import UserError

from .images import UnreadableImageError
from .views import read_panorama, read_tile, resize

_META = ("city", "pair", "tile", "semi_tiles", "offset", "metres_per_pixel", "flip", "quarter_turns")


class GeoSample(BaseDataElement):
    """What is known of a pair (as metainfo), and what a model found (as data)."""


@TRANSFORMS.register_module()
class LoadViews(BaseTransform):
    """Reads ``ground_path`` and ``satellite_path`` and resizes.

    Args:
        ground_size, satellite_size: (height, width).
    """

    def __init__(self, ground_size: Sequence[int] = (384, 768), satellite_size: Sequence[int] = (384, 384)):
        self.ground_size, self.satellite_size = ground_size, satellite_size

    def transform(self, results: dict) -> dict:
        """Adds the views whose paths there are."""
        for view, read, size in (
            ("ground", read_panorama, self.ground_size),
            ("satellite", read_tile, self.satellite_size),
        ):
            if f"{view}_path" in results:
                path = results[f"{view}_path"]
                try:
                    results[view] = resize(read(path), size)
                except UnreadableImageError as error:
                    raise UserError(f"{path}: {error}") from error
        return results


@TRANSFORMS.register_module()
class JointFlipTurn(BaseTransform):
    """Mirrors and turns both views alike; targets follow by ``flip`` and ``quarter_turns``.

    Args:
        flip_prob: of a mirror image.
        turn_prob: of one, two or three quarter turns, counter-clockwise from above.
    """

    def __init__(self, flip_prob: float = 0.5, turn_prob: float = 0.75):
        self.flip_prob, self.turn_prob = flip_prob, turn_prob

    def transform(self, results: dict) -> dict:
        """Changes ``ground`` and ``satellite``; adds ``flip`` and ``quarter_turns``."""
        flip = random.random() < self.flip_prob
        turns = random.choice((1, 2, 3)) if random.random() < self.turn_prob else 0
        ground, satellite = results["ground"], results["satellite"]
        if flip:
            ground, satellite = ground[:, ::-1], satellite[:, ::-1]
        # What was east is north after one turn: the panorama's middle moves there.
        results["ground"] = np.roll(ground, -turns * ground.shape[1] // 4, axis=1)
        results["satellite"] = np.ascontiguousarray(np.rot90(satellite, turns))
        results["flip"], results["quarter_turns"] = flip, turns
        return results


@TRANSFORMS.register_module()
class ViewPhotometry(BaseTransform):
    """Compression, colours, sharpness and holes, for each view by itself.

    Args:
        compress_prob: of JPEG compression of quality 90 to 100.
        colour_prob: of changes of brightness, contrast, saturation and hue by up to 0.15.
        sharpness_prob: of a blur or, as likely, a sharpening.
        holes_prob: of a grid of holes or, as likely, 10 to 25 scattered ones.
        grid_ratio: share of a grid's cell that is missing, for ground and satellite.
    """

    def __init__(
        self,
        compress_prob: float = 0.5,
        colour_prob: float = 0.5,
        sharpness_prob: float = 0.3,
        holes_prob: float = 0.3,
        grid_ratio: tuple[float, float] = (0.5, 0.4),
    ):
        self.holes_prob, self.grid_ratio = holes_prob, grid_ratio
        blur_or_sharpen = v2.RandomChoice([v2.GaussianBlur(5, (0.2, 1.5)), v2.RandomAdjustSharpness(2.0, 1.0)])
        self._colours = v2.Compose(
            [
                v2.RandomApply([v2.JPEG((90, 100))], compress_prob),
                v2.RandomApply([v2.ColorJitter(0.15, 0.15, 0.15, 0.15)], colour_prob),
                v2.RandomApply([blur_or_sharpen], sharpness_prob),
            ]
        )

    def transform(self, results: dict) -> dict:
        """Changes ``ground`` and ``satellite``."""
        for view, ratio in zip(("ground", "satellite"), self.grid_ratio):
            pixels = torch.from_numpy(np.ascontiguousarray(results[view])).permute(2, 0, 1)
            changed = self._colours(pixels).permute(1, 2, 0).numpy().copy()
            if random.random() < self.holes_prob:
                _grid_holes(changed, ratio) if random.random() < 0.5 else _scattered_holes(changed)
            results[view] = changed
        return results


def _grid_holes(pixels: np.ndarray, ratio: float) -> None:
    """The grid of Sample4Geo's library at its defaults: ten cells across the width, from the upper left corner on."""
    height, width = pixels.shape[:2]
    cell = max(2, width // 10)
    hole = min(max(int(cell * ratio), 1), cell - 1)
    for top in range(0, height, cell):
        for left in range(0, width, cell):
            pixels[top : top + hole, left : left + hole] = 0


def _scattered_holes(pixels: np.ndarray) -> None:
    height, width = pixels.shape[:2]
    for _ in range(random.randint(10, 25)):
        tall, wide = (random.randint(int(0.1 * height), int(0.2 * height)) for _ in range(2))
        top, left = random.randint(0, height - tall), random.randint(0, max(0, width - wide))
        pixels[top : top + tall, left : left + wide] = 0


@TRANSFORMS.register_module()
class PackViews(BaseTransform):
    """To ``inputs`` (uint8 (3, H, W) by view) and ``data_samples`` (a :class:`GeoSample`)."""

    def transform(self, results: dict) -> dict:
        """Keeps what a model needs."""
        inputs = {
            view: torch.from_numpy(np.ascontiguousarray(results[view].transpose(2, 0, 1)))
            for view in ("ground", "satellite")
            if view in results
        }
        meta = {key: results[key] for key in _META if key in results}
        return dict(inputs=inputs, data_samples=GeoSample(metainfo=meta))
