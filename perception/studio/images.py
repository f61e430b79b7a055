"""The pixels of a scene's training images, as they are on disk: all in memory, or read when they are needed."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image
from torch import Tensor

from perception.datasets.images import UnreadableImageError, open_image
from perception.radiance.tiles import Tile
from perception.studio.errors import SceneError

MODES = ("L", "P", "RGB", "RGBA", "LA")
"""PIL's names of the pixel types that are read."""


class ViewTile(NamedTuple):
    """A rectangle of pixels of one image."""

    view: int
    tile: Tile


class ImageStore(ABC):
    """The pixels of images, and the way from a pixel's index to its image, row and column.

    A *pixel index* counts the pixels of all images, image by image and row by row, those of hidden views as well.

    Args:
        cameras: of the images, which may differ in size.
        unmasked: (P,) bool, the pixels that no mask excludes; ``None`` where there are no masks.
    """

    def __init__(self, cameras: Cameras, unmasked: Tensor | None = None):
        self.sizes = list(zip(cameras.height.flatten().tolist(), cameras.width.flatten().tolist()))
        self.first = torch.tensor([0, *(height * width for height, width in self.sizes)]).cumsum(0)  # (images + 1,)
        self.width = torch.tensor([width for _, width in self.sizes])
        self.views = torch.arange(len(self.sizes))
        self._unmasked = unmasked
        self._usable: Tensor | None = None

    @property
    def num_pixels(self) -> int:
        """Of all images."""
        return int(self.first[-1])

    # Which pixels may be drawn

    @property
    def usable(self) -> Tensor:
        """Indices of the pixels of the shown views that no mask excludes."""
        if self._usable is None:
            self._usable = self.pixels_of(self.views)
        return self._usable

    def show(self, views: Sequence[int] | Tensor) -> None:
        """Train on these views alone, until others are shown.

        Raises:
            SceneError: there is no such view, or nothing is left to train on.
        """
        chosen = torch.as_tensor(views, dtype=torch.long).unique()
        if not len(chosen) or int(chosen[0]) < 0 or int(chosen[-1]) >= len(self.sizes):
            raise SceneError(f"training views are numbered from 0 to {len(self.sizes) - 1}, not {chosen.tolist()}")
        self.views, self._usable = chosen, None

    def pixels_of(self, views: Tensor) -> Tensor:
        """Indices of the pixels of views (V,) that no mask excludes.

        Raises:
            SceneError: the masks leave none.
        """
        pixels = self._without_masked(self._all_of(views))
        if not len(pixels):
            raise SceneError("the masks exclude every pixel of every training image")
        return pixels

    def shown(self, chosen: Tensor) -> Tensor:
        """Indices of the chosen pixels of the shown views, bool (P,) view by view, but those that masks exclude."""
        return self._without_masked(self._all_of(self.views)[chosen])

    def _all_of(self, views: Tensor) -> Tensor:
        if len(views) == len(self.sizes):
            return torch.arange(self.num_pixels)
        bounds = self.first.tolist()
        return torch.cat([torch.arange(bounds[view], bounds[view + 1]) for view in views.tolist()])

    def _without_masked(self, pixels: Tensor) -> Tensor:
        return pixels if self._unmasked is None else pixels[self._unmasked[pixels]]

    def unmasked(self, pixels: Tensor) -> Tensor | None:
        """Which pixels (N,) no mask excludes, bool (N,); ``None`` where the scene has no masks."""
        return None if self._unmasked is None else self._unmasked[pixels]

    # From an index to a place

    def numbers(self, positions: Tensor) -> Tensor:
        """Indices (N,) of pixels by camera, row and column (N, 3)."""
        image, row, column = positions.unbind(-1)
        return self.first[image] + row * self.width[image] + column

    def positions(self, pixels: Tensor) -> Tensor:
        """Camera, row and column (N, 3) of pixel indices (N,)."""
        image = torch.bucketize(pixels, self.first, right=True) - 1
        place = pixels - self.first[image]
        return torch.stack([image, place // self.width[image], place % self.width[image]], -1)

    def image_positions(self, image: int, stride: int = 1) -> Tensor:
        """Camera, row and column (N, 3) of every ``stride``-th row and column of one image, row by row."""
        height, width = self.sizes[image]
        rows, columns = torch.meshgrid(torch.arange(0, height, stride), torch.arange(0, width, stride), indexing="ij")
        return torch.stack([torch.full_like(rows, image), rows, columns], -1).reshape(-1, 3)

    def tile_pixels(self, place: ViewTile) -> Tensor:
        """Indices (h * w,) of the pixels of a tile, row by row."""
        tile, width = place.tile, self.sizes[place.view][1]
        rows = torch.arange(tile.row, tile.row + tile.height)[:, None]
        columns = torch.arange(tile.column, tile.column + tile.width)
        return (self.first[place.view] + rows * width + columns).reshape(-1)

    # Colours

    @abstractmethod
    def colours(self, pixels: Tensor, background: Tensor) -> Tensor:
        """Colours (N, 3) in [0, 1] of pixel indices (N,), on a background (3,)."""

    def tile_colours(self, place: ViewTile, background: Tensor) -> Tensor:
        """Colours (h, w, 3) in [0, 1] of a tile, on a background (3,)."""
        colours = self.colours(self.tile_pixels(place), background)
        return colours.view(place.tile.height, place.tile.width, 3)

    def checksums(self) -> Tensor:
        """A checksum (images,) of what is known of each image."""
        return torch.tensor([self._checksum(view) for view in range(len(self.sizes))])

    @abstractmethod
    def _checksum(self, view: int) -> int:
        """Of one image."""


class FileStore(ImageStore):
    """Pixels as files hold them: 8 bits, with their alpha channel.

    Args:
        dataset: images and cameras.
        need_alpha: whether images without an alpha channel are refused.
    """

    def __init__(self, dataset: InputDataset, *, need_alpha: bool):
        super().__init__(dataset.cameras, _read_masks(dataset))
        self.dataset, self.need_alpha = dataset, need_alpha

    def colours(self, pixels: Tensor, background: Tensor) -> Tensor:
        values = self._values(pixels).float() / 255
        if values.shape[1] == 3:
            return values
        alpha = values[:, 3:]
        return values[:, :3] * alpha + background * (1 - alpha)

    def coverage(self, pixels: Tensor) -> Tensor | None:
        """Share (N,) of pixels (N,) that the object covers, from the alpha channel; ``None`` without one."""
        values = self._values(pixels)
        return values[:, 3].float() / 255 if values.shape[1] == 4 else None

    @abstractmethod
    def _values(self, pixels: Tensor) -> Tensor:
        """What the files hold at pixel indices (N,): uint8 (N, 3 or 4)."""

    @abstractmethod
    def image(self, view: int) -> Tensor:
        """What the file of a view holds, row by row: uint8 (H * W, C), with as many channels as any image has."""

    def _checksum(self, view: int) -> int:
        return zlib.crc32(self.image(view).numpy())

    def show_frame(self, filenames: Sequence[Path]) -> None:
        """Replace the images by those of another time, one for each camera and of the same sizes.

        Raises:
            SceneError: their number is another, or one cannot be read.
        """
        if len(filenames) != len(self.sizes):
            raise SceneError(f"a frame of {len(filenames)} images for {len(self.sizes)} cameras")
        self.dataset._dataparser_outputs.image_filenames = list(filenames)
        self._forget()

    @abstractmethod
    def _forget(self) -> None:
        """The dataset's files are others."""

    def _decode(self, view: int) -> np.ndarray:
        """(H, W, 3 or 4)"""
        image = self.dataset.get_numpy_image(view)
        if self.need_alpha:
            check_alpha(self.dataset.image_filenames[view], image)
        return image


class PixelStore(FileStore):
    """All pixels in one uint8 table."""

    def __init__(self, dataset: InputDataset, *, need_alpha: bool):
        super().__init__(dataset, need_alpha=need_alpha)
        self._forget()

    def _forget(self) -> None:
        images = [self._decode(view) for view in range(len(self.sizes))]
        channels = max(image.shape[2] for image in images)
        tables = [_with_channels(image, channels).reshape(-1, channels) for image in images]
        self.table = torch.from_numpy(np.concatenate(tables))  # (P, 3 or 4)

    def _values(self, pixels: Tensor) -> Tensor:
        return self.table[pixels]

    def image(self, view: int) -> Tensor:
        return self.table[self.first[view] : self.first[view + 1]]


class LazyPixelStore(FileStore):
    """Images that are read when a pixel of them is asked for; the last ones stay decoded.

    Args:
        dataset, need_alpha: see :class:`FileStore`.
        keep: how many stay.
    """

    def __init__(self, dataset: InputDataset, *, need_alpha: bool, keep: int):
        super().__init__(dataset, need_alpha=need_alpha)
        self.held = HeldImages(self._decode, keep)
        self._channels: int | None = None

    def _forget(self) -> None:
        self.held.clear()
        self._channels = None

    def _values(self, pixels: Tensor) -> Tensor:
        view = torch.bucketize(pixels, self.first, right=True) - 1
        present = view.unique().tolist()
        shared = self._shared_channels() if len(present) > 1 else None
        values: Tensor | None = None
        for number in present:
            chosen, image = view == number, self.held[number]
            channels = shared or image.shape[2]
            flat = torch.from_numpy(_with_channels(image, channels).reshape(-1, channels))
            found = flat[pixels[chosen] - self.first[number]]
            if values is None:
                values = found.new_empty(len(pixels), found.shape[1])
            values[chosen] = found
        return torch.zeros(0, 3, dtype=torch.uint8) if values is None else values

    def image(self, view: int) -> Tensor:
        channels = self._shared_channels()
        return torch.from_numpy(_with_channels(self.held[view], channels).reshape(-1, channels))

    def _shared_channels(self) -> int:
        if self._channels is None:
            from perception.studio.image_files import look_at_all

            headers = look_at_all(self.dataset.image_filenames)
            self._channels = 4 if any(header.has_alpha for header in headers) else 3
        return self._channels


class HeldImages:
    """Images (H, W, C) by their numbers, of which the last ones asked for stay decoded.

    Args:
        decode: makes the image of a number.
        keep: how many stay; all where it is ``None``.
    """

    def __init__(self, decode: Callable[[int], np.ndarray], keep: int | None):
        self._decode, self._keep = decode, keep
        self._images: OrderedDict[int, np.ndarray] = OrderedDict()

    def __getitem__(self, number: int) -> np.ndarray:
        if number in self._images:
            self._images.move_to_end(number)
        else:
            while self._keep is not None and len(self._images) >= self._keep:
                self._images.popitem(last=False)
            self._images[number] = self._decode(number)
        return self._images[number]

    def __len__(self) -> int:
        return len(self._images)

    def clear(self) -> None:
        """Hold none."""
        self._images.clear()


def check_alpha(path: Path, image: np.ndarray) -> None:
    """Raise where an image (H, W, C) has no alpha channel.

    Raises:
        SceneError: so it is.
    """
    if image.shape[2] != 4:
        raise SceneError(
            f"{path} has {image.shape[2]} channels, but a scene in Blender layout needs RGBA images; to take opaque "
            "ones as they are, add --pipeline.datamanager.allow-opaque True"
        )


def _read_masks(dataset: InputDataset) -> Tensor | None:
    """Which pixels (P,) of all images no mask excludes."""
    if dataset._dataparser_outputs.mask_filenames is None:
        return None
    return torch.cat([dataset.get_data(index)["mask"].reshape(-1).bool() for index in range(len(dataset))])


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
