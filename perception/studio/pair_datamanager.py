"""Training on two resolutions: rays through the pixels of small images, with the large images' pixels beside them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from perception.studio.datamanager import BackgroundDataset, RayDataManager, RayDataManagerConfig
from perception.studio.errors import SceneError
from perception.studio.image_pairs import ImagePairs, on_background
from perception.studio.images import HeldImages, ImageStore, ViewTile, check_alpha
from perception.studio.samplers import PatchSamplerConfig, SamplerConfig


@dataclass
class PairDataManagerConfig(RayDataManagerConfig):
    """Data of a method that renders small images and makes large ones of them."""

    _target: type = field(default_factory=lambda: PairDataManager)
    sampler: SamplerConfig = PatchSamplerConfig()  # noqa: RUF009 (frozen)
    """Which pixels of the small images a step trains on; a method's stages may choose others."""
    scale: int = 4
    """How many times larger the large images are. Where the scene has no small ones they are averages of squares."""


class LargeDataset(BackgroundDataset):
    """The large images and their cameras; ``pairs`` has the small ones."""

    def __init__(self, pairs: ImagePairs, outputs, *, background: Tensor):
        large = replace(outputs, image_filenames=pairs.high_filenames, cameras=pairs.high)
        super().__init__(large, background=background)
        self.pairs = pairs

    def get_numpy_image(self, image_idx: int) -> np.ndarray:
        return self.pairs.high_pixels(image_idx)


class PairStore(ImageStore):
    """The pixels of small images, all in memory, and those of the large ones, which are read when they are needed.

    Args:
        pairs: small and large views.
        need_alpha: whether large images without an alpha channel are refused.
        keep: how many large images stay decoded; all that were needed where it is ``None``.
    """

    def __init__(self, pairs: ImagePairs, *, need_alpha: bool, keep: int | None):
        super().__init__(pairs.low)
        self.pairs, self._need_alpha = pairs, need_alpha
        self.large = HeldImages(self._decode, keep)
        self.table = torch.cat([pairs.low_image(view).reshape(-1, 3) for view in range(len(pairs))])  # (P, 3)

    def colours(self, pixels: Tensor, background: Tensor) -> Tensor:
        """Colours (N, 3) in [0, 1] of pixels (N,) of the small images, on the background of the pairs."""
        return self.table[pixels]

    def large_tile(self, place: ViewTile) -> Tensor:
        """Colours (scale h, scale w, 3) in [0, 1] that the large image has where the small one has a tile."""
        row, column, height, width = place.tile.scaled(self.pairs.scale)
        pixels = self.large[place.view][row : row + height, column : column + width]
        return on_background(pixels, self.pairs.background)

    def _decode(self, view: int) -> np.ndarray:
        image = self.pairs.high_pixels(view)
        if self._need_alpha:
            check_alpha(self.pairs.high_filenames[view], image)
        return image

    def _checksum(self, view: int) -> int:
        small = self.table[self.first[view] : self.first[view + 1]]
        return zlib.crc32(np.ascontiguousarray(self.large[view]), zlib.crc32(small.numpy()))


class PairDataManager(RayDataManager):
    """Rays and colours of small images; what is evaluated, rendered and shown are the large ones.

    Raises:
        SceneError: the scene has masks, or cameras are to be scaled besides.
    """

    config: PairDataManagerConfig
    pixels: PairStore

    def _dataset(self, outputs) -> LargeDataset:
        if self.config.scale < 1:
            raise SceneError(f"--pipeline.datamanager.scale must be at least 1, not {self.config.scale}")
        if self.config.camera_res_scale_factor != 1:
            raise SceneError(
                "--pipeline.datamanager.camera-res-scale-factor has no effect on images of two resolutions: choose "
                "smaller images by the data parser"
            )
        if outputs.mask_filenames is not None:
            raise SceneError("the scene has masks, which are not read for images of two resolutions: remove them")
        pairs = ImagePairs(outputs, self.config.scale, self.background)
        return LargeDataset(pairs, outputs, background=self.background)

    def make_store(self, dataset: InputDataset, *, need_alpha: bool) -> PairStore:
        """The small images' pixels, and the large ones beside them."""
        return PairStore(_pairs(dataset), need_alpha=need_alpha, keep=self.config.images_in_memory)

    def ray_cameras(self, dataset: InputDataset) -> Cameras:
        """The cameras of the small images."""
        return _pairs(dataset).low

    def ray_image(self, dataset: InputDataset, view: int) -> Tensor:
        """A small image (h, w, 3)."""
        return _pairs(dataset).low_image(view)

    def next_train(self, step: int) -> tuple[RayBundle, dict]:
        """As :meth:`RayDataManager.next_train`, of the small images; where they draw a tile (h, w), ``high`` holds the
        colours (scale h, scale w, 3) of the large image there."""
        rays, batch = super().next_train(step)
        if "tile" in batch:
            batch["high"] = self.pixels.large_tile(batch["tile"])
        return rays, batch


def _pairs(dataset: InputDataset) -> ImagePairs:
    assert isinstance(dataset, LargeDataset)
    return dataset.pairs
