"""Views at two resolutions, for methods that render small images and make large ones of them.

The large images either lie beside the small ones (LLFF: `images` beside `images_4`), or are all there is, and the small
ones are their averages over squares of pixels (Blender and other layouts). Pixel (r, c) of a large image belongs to
pixel (r // scale, c // scale) of the small one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image
from torch import Tensor

from perception.datasets.images import UnreadableImageError, open_image
from perception.studio.errors import SceneError
from perception.studio.findings import Findings, counted
from perception.studio.image_files import ImageFile, look_at_all
from perception.studio.images import MODES, read_image

KEY = "high_resolution"
THUMBNAIL = (12, 9)  # pixels, width and height, of the pictures by which contents are compared
SAMPLED = 24  # pairs whose contents are compared
LEAST_GAIN = 0.1  # of correlation, by which another image must fit better before the order is doubted


@dataclass(frozen=True)
class HighResolution:
    """The large images of a split, one for each of its images: `metadata["high_resolution"]` of data parsers."""

    image_filenames: tuple[Path, ...]
    scale: int
    """How many times larger they are. Of a file that is larger still, by less than ``scale`` pixels, the top left part
    counts."""


class ImagePairs:
    """The small and large views of a split.

    Args:
        outputs: of a data parser.
        scale: how many times larger the large images are.
        background: colour (3,) behind transparent pixels.

    Raises:
        SceneError: the data parser pairs images at another scale.
    """

    def __init__(self, outputs: DataparserOutputs, scale: int, background: Tensor):
        stated: HighResolution | None = outputs.metadata.get(KEY)
        if stated is not None and stated.scale != scale:
            raise SceneError(
                f"the method makes images {scale} times larger, but the scene pairs them at {stated.scale}"
            )
        self.scale, self.background = scale, background.float().cpu()
        self._files = list(outputs.image_filenames if stated is None else stated.image_filenames)
        if stated is None:
            self.low_filenames, self.low = None, shrunk_cameras(outputs.cameras, scale)
            _say_remainders(outputs, scale)
        else:
            self.low_filenames, self.low = list(outputs.image_filenames), outputs.cameras
        self.high = enlarged_cameras(self.low, scale)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def high_filenames(self) -> list[Path]:
        """Files of the large images."""
        return self._files

    def high_pixels(self, index: int) -> np.ndarray:
        """A large image (scale h, scale w, 3 or 4), uint8 as it is stored."""
        camera = self.high[index]
        height, width = int(camera.height), int(camera.width)
        path = self._files[index]
        size = _stored_size(path)
        if not _covers(size, (width, height), self.scale):
            raise SceneError(_size_fault(path, size, (width, height), self.scale))
        return read_image(path, (size[1], size[0]), scaled=False)[:height, :width]

    def high_image(self, index: int) -> Tensor:
        """A large image (scale h, scale w, 3) in [0, 1] on the background."""
        return on_background(self.high_pixels(index), self.background)

    def low_image(self, index: int) -> Tensor:
        """A small image (h, w, 3) in [0, 1] on the background."""
        if self.low_filenames is None:
            return area_average(self.high_image(index), self.scale)
        camera = self.low[index]
        pixels = read_image(self.low_filenames[index], (int(camera.height), int(camera.width)), scaled=False)
        return on_background(pixels, self.background)


def _say_remainders(outputs: DataparserOutputs, scale: int) -> None:
    widths, heights = outputs.cameras.width.reshape(-1), outputs.cameras.height.reshape(-1)
    odd = ((widths % scale != 0) | (heights % scale != 0)).nonzero()[:, 0].tolist()
    if odd:
        CONSOLE.log(
            f"[yellow]{outputs.image_filenames[odd[0]]} is {int(widths[odd[0]])} x {int(heights[odd[0]])} pixels, no "
            f"multiple of {scale}: what remains at its right and lower end is left out (and {len(odd) - 1} more)",
            highlight=False,
        )


def on_background(pixels: np.ndarray, background: Tensor) -> Tensor:
    """Colours (H, W, 3) in [0, 1] of uint8 pixels (H, W, 3 or 4) on a colour (3,)."""
    values = torch.from_numpy(np.array(pixels)).float() / 255
    if values.shape[-1] == 3:
        return values
    alpha = values[..., 3:]
    return values[..., :3] * alpha + background * (1 - alpha)


def area_average(image: Tensor, scale: int) -> Tensor:
    """The means (H / scale, W / scale, C) of squares of ``scale`` x ``scale`` pixels of an image (H, W, C).

    Raises:
        ValueError: a side is not a multiple of ``scale``.
    """
    height, width, channels = image.shape
    if height % scale or width % scale:
        raise ValueError(f"sides of {width} x {height} pixels are not multiples of {scale}")
    return image.reshape(height // scale, scale, width // scale, scale, channels).mean((1, 3))


def shrunk_cameras(cameras: Cameras, scale: int) -> Cameras:
    """Cameras (N) of images that are ``scale`` times smaller; the remainder of a side, at its right or lower end, is
    left out."""
    return replace(
        cameras,
        fx=cameras.fx / scale,
        fy=cameras.fy / scale,
        cx=cameras.cx / scale,
        cy=cameras.cy / scale,
        width=cameras.width // scale,
        height=cameras.height // scale,
    )


def enlarged_cameras(cameras: Cameras, scale: int) -> Cameras:
    """Cameras (N) of images that are ``scale`` times larger."""
    return replace(
        cameras,
        fx=cameras.fx * scale,
        fy=cameras.fy * scale,
        cx=cameras.cx * scale,
        cy=cameras.cy * scale,
        width=cameras.width * scale,
        height=cameras.height * scale,
    )


def check_pairs(outputs: DataparserOutputs, findings: Findings) -> None:
    """Note large images of a split that are missing, broken, of another type, of another size than a multiple of their
    small ones, or that show something else.

    Args:
        outputs: the split; nothing happens where its data parser pairs no images.
        findings: what is wrong is added to it.
    """
    pairs: HighResolution | None = outputs.metadata.get(KEY)
    if pairs is None:
        return
    if len(pairs.image_filenames) != len(outputs.image_filenames):
        findings.error(
            f"there are {len(outputs.image_filenames)} images but {len(pairs.image_filenames)} large ones beside them"
        )
        return
    files = look_at_all(pairs.image_filenames)
    findings.error(*(file.fault for file in files if file.fault))
    findings.error(
        *(
            f"{file.path} has pixels of type {file.mode}; 8-bit RGB or RGBA is needed"
            for file in files
            if not file.fault and file.mode not in MODES
        )
    )
    wrong, cropped = _compare_sizes(outputs.cameras, files, pairs.scale)
    findings.error(*wrong)
    findings.warn(*cropped)
    if not findings.errors:
        check_contents(outputs.image_filenames, pairs.image_filenames, findings)


def _compare_sizes(cameras: Cameras, files: Sequence[ImageFile], scale: int) -> tuple[list[str], list[str]]:
    wrong, cropped = [], []
    sizes = zip(cameras.width.reshape(-1).tolist(), cameras.height.reshape(-1).tolist())
    for file, (width, height) in zip(files, sizes):
        if file.fault:
            continue
        wanted, found = (width * scale, height * scale), (file.width, file.height)
        if not _covers(found, wanted, scale):
            wrong.append(_size_fault(file.path, found, wanted, scale))
        elif found != wanted:
            cropped.append(
                f"{file.path} is {found[0]} x {found[1]} pixels, no exact multiple: its top left "
                f"{wanted[0]} x {wanted[1]} are taken, so that {scale} times the image beside it shifts by up to "
                f"{max(has - want for has, want in zip(found, wanted))} pixels"
            )
    return wrong, cropped


def _covers(found: tuple[int, int], wanted: tuple[int, int], scale: int) -> bool:
    return all(0 <= has - want < scale for has, want in zip(found, wanted))


def _size_fault(path: Path, found: tuple[int, int], wanted: tuple[int, int], scale: int) -> str:
    return (
        f"{path} is {found[0]} x {found[1]} pixels, but {scale} times the small image is {wanted[0]} x {wanted[1]}: "
        "make the small images anew (tools/dataset_converters/shrink_images.py)"
    )


def _stored_size(path: Path) -> tuple[int, int]:
    file = look_at_all([path])[0]
    if file.fault:
        raise SceneError(file.fault)
    return file.width, file.height


def check_contents(small: Sequence[Path], large: Sequence[Path], findings: Findings) -> None:
    """Note files that were paired by their order and show different things.

    Files of one name are believed. Otherwise thumbnails are compared: where another large image fits a small one
    clearly better than its own does, the pairs are wrong.
    """
    if all(first.stem == second.stem for first, second in zip(small, large)):
        return
    chosen = np.unique(np.linspace(0, len(small) - 1, SAMPLED).astype(int))
    ours, theirs = (np.stack([_thumbnail(paths[index]) for index in chosen]) for paths in (small, large))
    likeness = ours @ theirs.T  # (S, S) correlations
    best = likeness.argmax(1)
    doubtful = np.flatnonzero(likeness.max(1) > np.diag(likeness) + LEAST_GAIN)
    findings.error(
        *(
            f"{large[chosen[index]]} was paired with {small[chosen[index]].name} by the order of names, but "
            f"{large[chosen[best[index]]].name} shows what that does: give both folders the same names, or name the "
            "images of all rows in view_imgs.txt"
            for index in doubtful.tolist()
        )
    )


def _thumbnail(path: Path) -> np.ndarray:
    """Grey values of a tiny picture, mean 0 and length 1."""
    try:
        with open_image(path) as image:
            if image.format == "JPEG":
                image.draft("L", (THUMBNAIL[0] * 8, THUMBNAIL[1] * 8))
            pixels = np.asarray(image.convert("L").resize(THUMBNAIL, Image.Resampling.BOX), dtype=np.float64)
    except UnreadableImageError as error:
        raise SceneError(counted([f"cannot read {path}: {error}"])) from None
    pixels = pixels.reshape(-1) - pixels.mean()
    return pixels / max(float(np.linalg.norm(pixels)), 1e-9)
