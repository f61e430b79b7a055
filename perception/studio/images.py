"""All pixels of a scene's training images, as they are on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image
from torch import Tensor

from perception.datasets.images import UnreadableImageError, open_image
from perception.studio.errors import SceneError

MODES = ("L", "P", "RGB", "RGBA", "LA")
"""PIL's names of the pixel types that are read."""


class PixelStore:
    """The pixels of a data set's images in one uint8 table, and the way from a pixel's index to its image, row and
    column.

    Args:
        dataset: images and cameras; the images may differ in size.
        need_alpha: whether images without an alpha channel are refused.
    """

    def __init__(self, dataset: InputDataset, *, need_alpha: bool):
        images = [dataset.get_numpy_image(index) for index in range(len(dataset))]
        for name, image in zip(dataset.image_filenames, images):
            if need_alpha and image.shape[2] != 4:
                raise SceneError(
                    f"{name} has {image.shape[2]} channels, but a scene in Blender layout needs RGBA images; "
                    "to take opaque ones as they are, add --pipeline.datamanager.allow-opaque True"
                )
        self.sizes = [image.shape[:2] for image in images]
        channels = max(image.shape[2] for image in images)
        tables = [_with_channels(image, channels).reshape(-1, channels) for image in images]
        self.table = torch.from_numpy(np.concatenate(tables))  # (P, 3 or 4)
        self.first = torch.tensor([0, *(height * width for height, width in self.sizes)]).cumsum(0)  # (images + 1,)
        self.width = torch.tensor([width for _, width in self.sizes])
        self.usable = self._usable(dataset)

    def _usable(self, dataset: InputDataset) -> Tensor:
        """Indices of the pixels that no mask excludes."""
        if dataset._dataparser_outputs.mask_filenames is None:
            return torch.arange(len(self.table))
        masks = [dataset.get_data(index)["mask"].reshape(-1).bool() for index in range(len(dataset))]
        usable = torch.cat(masks).nonzero()[:, 0]
        if not len(usable):
            raise SceneError("the masks exclude every pixel of every training image")
        return usable

    def positions(self, pixels: Tensor) -> Tensor:
        """Camera, row and column (N, 3) of pixel indices (N,)."""
        image = torch.bucketize(pixels, self.first, right=True) - 1
        place = pixels - self.first[image]
        return torch.stack([image, place // self.width[image], place % self.width[image]], -1)

    def colours(self, pixels: Tensor, background: Tensor) -> Tensor:
        """Colours (N, 3) in [0, 1] of pixel indices (N,), on a background (3,)."""
        values = self.table[pixels].float() / 255
        if values.shape[1] == 3:
            return values
        alpha = values[:, 3:]
        return values[:, :3] * alpha + background * (1 - alpha)

    def image_positions(self, image: int, stride: int = 1) -> Tensor:
        """Camera, row and column (N, 3) of every ``stride``-th row and column of one image, row by row."""
        height, width = self.sizes[image]
        rows, columns = torch.meshgrid(torch.arange(0, height, stride), torch.arange(0, width, stride), indexing="ij")
        return torch.stack([torch.full_like(rows, image), rows, columns], -1).reshape(-1, 3)


def read_image(path: Path, size: tuple[int, int], *, scaled: bool) -> np.ndarray:
    """Read an image (H, W, 3 or 4) as uint8.

    Rows and columns are those that are stored: cameras refer to these, as COLMAP and nerfstudio do not apply EXIF
    orientations either. Otherwise the rule is that of :mod:`perception.datasets.images`, except that alpha is kept.

    Args:
        path: an 8-bit grey, RGB or RGBA image.
        size: height and width that its camera has.
        scaled: resize it to ``size``; otherwise it must have that size.

    Raises:
        SceneError: it cannot be read, or has another size or type.
    """
    try:
        with open_image(path) as image:
            mode = image.mode
            pixels = _pixels(image, size if scaled else None) if mode in MODES else None
    except UnreadableImageError as error:
        raise SceneError(f"cannot read {path}: {error}") from None
    if pixels is None:
        raise SceneError(f"{path} has pixels of type {mode}; 8-bit RGB or RGBA is needed")
    if pixels.shape[:2] != size:
        raise SceneError(
            f"{path} is {pixels.shape[1]} x {pixels.shape[0]} pixels, but its camera {size[1]} x {size[0]}"
        )
    return pixels


def _pixels(image: Image.Image, size: tuple[int, int] | None) -> np.ndarray:
    """RGB, or RGBA where the file has transparency, resized to a height and width if they are given."""
    if image.mode != "RGBA":
        image = image.convert("RGBA" if image.mode == "LA" or "transparency" in image.info else "RGB")
    if size is not None:
        image = image.resize((size[1], size[0]), resample=Image.Resampling.BILINEAR)
    return np.array(image)


def _with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    if image.shape[2] == channels:
        return image
    return np.concatenate([image, np.full_like(image[..., :1], 255)], -1)
