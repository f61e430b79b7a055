"""What can be wrong with the images and masks of a scene, from their headers and a few borders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig, DataparserOutputs
from PIL import Image
from torch import Tensor

from perception.studio.findings import Findings
from perception.studio.image_files import ImageFile, look_at_all
from perception.studio.images import MODES

MASK_MODES = ("1", "L", "P", "I", "I;16", "F")  # those that become one channel
SAMPLED = 12  # images whose borders are looked at
BORDER = 0.03  # of the shorter side
SHADE_TOLERANCE = 12  # of 255, by which compressed black or white may be off
FAINT = 128  # alpha below which a bright colour exceeds it
FEWEST_FAINT = 50  # pixels that say something about colours and alpha
BORDER_SHARE = 0.7  # of the border's pixels that show one shade, beyond which it is a background


def check_images(
    outputs: DataparserOutputs, parser: DataParserConfig, need_alpha: bool, findings: Findings
) -> float | None:
    """Note images and masks of a split that are missing, broken, of another type, or of another size than expected.

    Args:
        outputs: the split.
        parser: settings of the data parser that gave it.
        need_alpha: whether images without an alpha channel are refused.
        findings: what is wrong is added to it.

    Returns:
        The share of the pixels that masks leave out; ``None`` without masks.
    """
    files = look_at_all(outputs.image_filenames)
    findings.error(*(file.fault for file in files if file.fault))
    whole = [file for file in files if not file.fault]
    findings.error(
        *(
            f"{file.path} has pixels of type {file.mode}; 8-bit RGB or RGBA is needed"
            for file in whole
            if file.mode not in MODES
        )
    )
    if need_alpha:
        findings.error(*(_no_alpha(file) for file in whole if file.mode in MODES and not file.has_alpha))
    _check_sizes(outputs, parser, files, findings)
    findings.warn(
        *(
            f"{file.path} is to be turned when shown (EXIF orientation {file.orientation}); "
            "its pixels are taken as they are stored"
            for file in whole
            if file.orientation != 1
        )
    )
    return None if outputs.mask_filenames is None else _check_masks(outputs.mask_filenames, files, findings)


def _no_alpha(file: ImageFile) -> str:
    return (
        f"{file.path} has 3 channels, but a scene in Blender layout needs RGBA images; "
        "to take opaque ones as they are, add --pipeline.datamanager.allow-opaque True before the data parser's name"
    )


def _check_sizes(
    outputs: DataparserOutputs, parser: DataParserConfig, files: Sequence[ImageFile], findings: Findings
) -> None:
    sizes = zip(outputs.cameras.width.reshape(-1).tolist(), outputs.cameras.height.reshape(-1).tolist())
    faults = []
    for file, (width, height) in zip(files, sizes):
        if file.fault or (file.width, file.height) == (width, height):
            continue
        fault = f"{file.path} is {file.width} x {file.height} pixels, but its camera {width} x {height}"
        if max(abs(file.width - width), abs(file.height - height)) <= 1:
            fault += _rounding_hint(parser)
        elif (file.height, file.width) == (width, height) and file.orientation != 1:
            fault += f": it is stored turned (EXIF orientation {file.orientation}): save it upright"
        faults.append(fault)
    findings.error(*faults)


def _rounding_hint(parser: DataParserConfig) -> str:
    used = getattr(parser, "downscale_rounding_mode", None)
    if used is None:
        return ": sizes of smaller images must be rounded down"
    others = " or ".join(mode for mode in ("floor", "round", "ceil") if mode != used)
    return f": add --downscale-rounding-mode {others} after `colmap` (now {used})"


def _check_masks(paths: Sequence[Path], images: Sequence[ImageFile], findings: Findings) -> float | None:
    if len(paths) != len(images):
        findings.error(f"there are {len(images)} images but {len(paths)} masks")
        return None
    masks = look_at_all(paths)
    findings.error(*(mask.fault.replace("no image", "no mask") for mask in masks if mask.fault))
    wrong_mode = [mask for mask in masks if not mask.fault and mask.mode not in MASK_MODES]
    findings.error(
        *(f"the mask {mask.path} has the channels {mask.mode}, but must have one (grey)" for mask in wrong_mode)
    )
    findings.error(
        *(
            f"the mask {mask.path} is {mask.width} x {mask.height} pixels, but its image {image.width} x {image.height}"
            for mask, image in zip(masks, images)
            if not mask.fault and not image.fault and (mask.width, mask.height) != (image.width, image.height)
        )
    )
    usable = [mask.path for mask in masks if not mask.fault and mask.mode in MASK_MODES]
    kept = {path: float(np.asarray(Image.open(path)).astype(bool).mean()) for path in usable}
    if empty := [path for path in usable if not kept[path]]:
        if len(empty) == len(paths):
            findings.error(f"the masks exclude every pixel of every image, {empty[0]} among them")
        else:
            findings.warn(*(f"the mask {path} excludes every pixel" for path in empty))
    return 1 - float(np.mean([kept[path] for path in usable])) if usable else None


def check_colours(outputs: DataparserOutputs, background: Tensor, remedy: str, findings: Findings) -> None:
    """Note opaque images whose borders are black where what is behind the scene is white, or the other way round, and
    transparent ones whose colours seem to be multiplied with alpha.

    Args:
        outputs: a split whose images are whole.
        background: colour (3,) that rays show which meet nothing.
        remedy: ends the sentence about the background; ``{0}`` in it is the name of a colour.
        findings: warnings are added to it.
    """
    chosen = np.unique(np.linspace(0, len(outputs.image_filenames) - 1, SAMPLED).astype(int))
    images = [_pixels(outputs.image_filenames[index]) for index in chosen]
    borders = [
        image[_border(image.shape[:2], outputs, index)][:, :3]
        for image, index in zip(images, chosen)
        if (image[..., 3] == 255).all()
    ]
    if borders and float(background.mean()) in (0.0, 1.0):
        _check_borders(np.concatenate(borders), float(background.mean()), remedy, findings)
    _check_multiplied(np.concatenate([image.reshape(-1, 4) for image in images]), findings)


def _check_borders(pixels: np.ndarray, shade: float, remedy: str, findings: Findings) -> None:
    """Look at border pixels (P, 3); ``shade`` of what is behind the scene is 0 or 1."""
    if not len(pixels):
        return
    other = "black" if shade else "white"
    shows = pixels.max(-1) <= SHADE_TOLERANCE if shade else pixels.min(-1) >= 255 - SHADE_TOLERANCE
    if (share := float(shows.mean())) > BORDER_SHARE:
        findings.warn(
            f"{share:.0%} of the border pixels of opaque training images are {other}, but rays that meet nothing show "
            f"{'white' if shade else 'black'}: {remedy.format(other)}"
        )


def _check_multiplied(pixels: np.ndarray, findings: Findings) -> None:
    """Look at pixels (P, 4): in images that are multiplied with alpha no colour exceeds it."""
    highest, alpha = pixels[:, :3].max(-1), pixels[:, 3]
    faint = (alpha > 0) & (alpha < FAINT)
    solid_and_bright = (alpha == 255) & (highest > FAINT)
    if faint.sum() >= FEWEST_FAINT and solid_and_bright.sum() >= FEWEST_FAINT and (highest <= alpha)[faint].all():
        findings.warn(
            "the colours of half-transparent pixels look multiplied with alpha: they will be again, which makes edges "
            "dark; save images with straight alpha"
        )


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGBA"))


def _border(size: tuple[int, int], outputs: DataparserOutputs, index: int) -> np.ndarray:
    """Which pixels (H, W) are at the border of an image and not excluded by a mask."""
    thick = max(1, round(BORDER * min(size)))
    chosen = np.ones(size, dtype=bool)
    chosen[thick:-thick, thick:-thick] = False
    if outputs.mask_filenames is not None:
        with Image.open(outputs.mask_filenames[index]) as mask:
            chosen &= np.asarray(mask).astype(bool)
    return chosen
