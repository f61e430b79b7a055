"""Results drawn on their image, legible from thumbnails to posters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from perception.datasets.palette import Colour
from perception.inference.images.results import UNLABELLED, Detections, LabelMap, MaskCrop, Segments

_MASK_OPACITY = 0.45
_LABEL_OPACITY = 215  # of 255
# A label of which better ones would hide more than this is left out.
_HIDDEN = 0.25
# Nobody reads more labels than this, and each is compared with all before it.
_MOST_LABELS = 500
# Classes that a legend names at most.
_LEGEND = 12
# With more detections than this, lines and letters get smaller.
_CROWD = 40


def draw(pixels: np.ndarray, detections: Detections, classes: Sequence[str], palette: Sequence[Colour]) -> Image.Image:
    """Draws boxes (rotated ones with a dot at the middle of the side that the angle points to), labels with scores, and
    masks where there are some.

    Args:
        pixels: uint8 (height, width, 3) RGB; not changed.
        detections: in coordinates of `pixels`, best first.
        classes: names by label.
        palette: RGB by label.

    Returns:
        An image of the same size.
    """
    height, width = pixels.shape[:2]
    extent = math.sqrt(width * height)
    # A crowd gets thinner lines and smaller letters, or nothing of the image would be left.
    crowd = min(1.0, _CROWD / max(1, len(detections.scores))) ** 0.25
    # So do small objects, which labels would hide.
    bounds = detections.bounds()
    object_size = float(np.median(np.sqrt((bounds[:, 2:] - bounds[:, :2]).clip(1).prod(1)))) if len(bounds) else extent
    line = max(1, round(min(crowd * 0.0035 * extent, 0.08 * object_size)))
    letters = max(9, round(min(crowd * (4 + 0.018 * extent), 0.4 * object_size)))
    corners = detections.corners()
    # Worst first, so that better boxes lie on top.
    worst_first = range(len(detections.scores))[::-1]
    if detections.masks is not None:
        pixels = pixels.copy()
        for index in worst_first:
            _blend(pixels, detections.masks[index], palette[detections.labels[index]])
    image = Image.fromarray(pixels)
    # Drawing in mode RGBA blends fills by their alpha.
    canvas = ImageDraw.Draw(image, "RGBA")
    for index in worst_first:
        outline = _draw_polygon if detections.rotated else _draw_rectangle
        outline(canvas, corners[index], palette[detections.labels[index]], line)
    _draw_labels(canvas, (width, height), line, letters, bounds, detections, classes, palette)
    return image


def draw_label_map(
    pixels: np.ndarray, found: LabelMap, classes: Sequence[str], palette: Sequence[Colour]
) -> Image.Image:
    """Tints every labelled pixel with its class's colour, draws borders, and adds a legend of the largest classes.

    Args:
        pixels: uint8 (height, width, 3) RGB; not changed.
        found: labels of the same size.
        classes: names by label.
        palette: RGB by label.
    """
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    image = _tinted(pixels, found.labels, colours, UNLABELLED)
    counts = np.bincount(found.labels.ravel(), minlength=256)[: len(classes)]
    _draw_legend(image, counts, classes, palette)
    return image


def draw_segments(
    pixels: np.ndarray, found: Segments, classes: Sequence[str], palette: Sequence[Colour]
) -> Image.Image:
    """Tints every segment with a shade of its class's colour, draws borders, and adds a legend of the largest classes.

    Args:
        pixels: uint8 (height, width, 3) RGB; not changed.
        found: ids of the same size.
        classes: names by label.
        palette: RGB by label.
    """
    labels = found.labels.astype(np.int64)
    # Neighbours of one class differ in brightness.
    shades = np.array([1.0, 0.7, 0.85, 0.55])[np.arange(len(labels)) % 4]
    colours = np.zeros((len(labels) + 1, 3), np.uint8)
    colours[1:] = np.reshape(palette, (-1, 3))[labels] * shades[:, None]
    image = _tinted(pixels, found.ids, colours, 0)
    areas = np.bincount(found.ids.ravel(), minlength=len(labels) + 1)[1:]
    counts = np.bincount(labels, weights=areas, minlength=len(classes))
    _draw_legend(image, counts, classes, palette)
    return image


def _tinted(pixels: np.ndarray, index: np.ndarray, colours: np.ndarray, nothing: int) -> Image.Image:
    """Pixels with the colour of their index, as far as they have one, and dark lines where the index changes."""
    tinted = cv2.addWeighted(pixels, 1 - _MASK_OPACITY, colours[index], _MASK_OPACITY, 0)
    result = np.where((index == nothing)[..., None], pixels, tinted)
    border = np.zeros(index.shape, bool)
    border[:, 1:] |= index[:, 1:] != index[:, :-1]
    border[1:] |= index[1:] != index[:-1]
    result[border] = (result[border] * 0.5).astype(np.uint8)
    return Image.fromarray(result)


def _draw_rectangle(canvas: ImageDraw.ImageDraw, corners: np.ndarray, colour: Colour, line: int) -> None:
    x1, y1, x2, y2 = (round(float(value)) for value in (*corners[0], *corners[2]))
    x2, y2 = max(x2, x1), max(y2, y1)
    # A dark rim keeps the line visible on a background of its own colour.
    canvas.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(0, 0, 0, 110), width=line + 2)
    canvas.rectangle((x1, y1, x2, y2), outline=colour, width=line)


def _draw_polygon(canvas: ImageDraw.ImageDraw, corners: np.ndarray, colour: Colour, line: int) -> None:
    ring = [tuple(corner) for corner in (*corners, *corners[:2])]
    canvas.line(ring, fill=(0, 0, 0, 110), width=line + 2, joint="curve")
    canvas.line(ring, fill=colour, width=line, joint="curve")
    # Where the box's own x axis points.
    x, y = (corners[1] + corners[2]) / 2
    canvas.ellipse((x - line - 1, y - line - 1, x + line + 1, y + line + 1), fill=colour, outline=(0, 0, 0, 110))


def _draw_legend(image: Image.Image, counts: np.ndarray, classes: Sequence[str], palette: Sequence[Colour]) -> None:
    """Names of classes in the lower left corner, the largest on top, as many as fit into a third of the picture.

    Args:
        image: changed in place.
        counts: pixels (classes,) of each class.
        classes: names by label.
        palette: RGB by label.
    """
    canvas, (width, height) = ImageDraw.Draw(image, "RGBA"), image.size
    labels = [int(label) for label in np.argsort(-counts, kind="stable") if counts[label]]
    font = _font(max(9, round(4 + 0.016 * math.sqrt(width * height))))
    ascent, descent = font.getmetrics()
    margin = max(1, round(font.size / 6))
    step = ascent + descent + margin
    shown = labels[: min(_LEGEND, height // 3 // step)]
    top = height - step * len(shown)
    for row, label in enumerate(shown):
        y = top + row * step
        right = math.ceil(font.getlength(classes[label])) + 2 * margin
        canvas.rectangle((0, y, min(width, right) - 1, y + step - 1), fill=(*palette[label], _LABEL_OPACITY))
        canvas.text((margin, y + margin // 2), classes[label], fill=_ink(palette[label]), font=font)


def _draw_labels(
    canvas: ImageDraw.ImageDraw,
    size: tuple[int, int],
    line: int,
    letters: int,
    bounds: np.ndarray,
    detections: Detections,
    classes: Sequence[str],
    palette: Sequence[Colour],
) -> None:
    font = _font(letters)
    ascent, descent = font.getmetrics()
    margin = max(1, round(font.size / 6))
    placed, labels = np.zeros((0, 4)), []
    best = slice(_MOST_LABELS)
    for box, score, label in zip(bounds[best], detections.scores[best], detections.labels[best]):
        text = f"{classes[label]} {score:.2f}"
        extent = (math.ceil(font.getlength(text)) + 2 * margin, ascent + descent + margin)
        (left, top), hidden = _place(box, extent, size, line, placed)
        if hidden <= _HIDDEN:
            placed = np.vstack([placed, (left, top, left + extent[0], top + extent[1])])
            labels.append((left, top, extent, text, palette[label]))
    # The best were placed first, and are drawn last.
    for left, top, (width, height), text, colour in reversed(labels):
        canvas.rectangle((left, top, left + width - 1, top + height - 1), fill=(*colour, _LABEL_OPACITY))
        canvas.text((left + margin, top + margin // 2), text, fill=_ink(colour), font=font)


def _place(
    box: np.ndarray, extent: tuple[int, int], size: tuple[int, int], line: int, placed: np.ndarray
) -> tuple[tuple[int, int], float]:
    """The best corner for a label inside the picture, and which share of the label lies on labels already there."""
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    width, height = extent
    wished = np.array(
        [  # in the order of preference
            (x1, y1 - height),
            (x1 + line, y1 + line),
            (x1, y2 + 1),
            (x2 + 1 - width, y1 - height),
            (x2 + 1 - width, y2 + 1),
            (x1 + line, y2 - line - height),
        ]
    )
    corners = wished.clip(0, np.maximum(0, np.subtract(size, extent)))
    labels = np.hstack([corners, corners + extent])
    hides = _overlaps(labels, placed).sum(1) / (width * height)
    covers = _overlaps(labels, np.array([[x1, y1, x2, y2]]))[:, 0] / max(1, (x2 - x1) * (y2 - y1))
    # Not to hide another label comes first, then to stay off a small object, then to stay where readers look for it.
    moved = corners[:, 1] != wished[:, 1]
    best = int(np.argmin(hides + 0.05 * covers + 0.01 * moved + 0.001 * np.arange(len(corners))))
    return (int(corners[best, 0]), int(corners[best, 1])), float(hides[best])


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Common area of each rectangle (xyxy) of `first` with each of `second`."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return (high - low).clip(0).prod(-1)


def _blend(pixels: np.ndarray, mask: MaskCrop, colour: Colour) -> None:
    """Tints what `mask` covers and draws its rim, in place."""
    inside = mask.inside
    height, width = inside.shape
    part = pixels[mask.top : mask.top + height, mask.left : mask.left + width]
    tinted = part[inside] * (1 - _MASK_OPACITY) + np.asarray(colour, np.float32) * _MASK_OPACITY
    part[inside] = tinted.astype(np.uint8)
    core = np.pad(inside, 1)
    core = core[:-2, 1:-1] & core[2:, 1:-1] & core[1:-1, :-2] & core[1:-1, 2:]
    part[inside & ~core] = colour


def _ink(colour: Colour) -> Colour:
    """Black or white, whichever reads better on a colour (ITU-R BT.601 luma)."""
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if luma > 140 else (255, 255, 255)


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
