"""A contact sheet: samples of a data set with their labels, as training sees them before augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as rle

from perception.datasets.images import UnreadableImageError, read_image
from perception.datasets.palette import default_palette
from perception.datasets.panoptic_code import rgb2id
from perception.datasets.seg_maps import read_seg_map
from perception.engine.atomic import replacing

from .config import DataSet

COLUMNS, ROWS = 5, 4
TILE = 384
"""Pixels of a sample's square; a line of text is below it."""

_TEXT = 22
_OPACITY = 0.4
_LEGEND = 150
_IGNORED = 255


def draw_sheet(dataset: DataSet, path: Path) -> bool:
    """Writes a JPEG of up to 20 images, among them as many classes as possible; False where samples are no images.

    Boxes are drawn in their class's colour, with its name where that fits in, crowds and ignored objects thinly; masks
    and maps of classes are laid over the image. A legend has the colours of the classes that are shown.

    Args:
        dataset: one that can be built.
        path: of the sheet.
    """
    arguments = {key: value for key, value in dataset.cfg.items() if key not in ("type", "pipeline")}
    built = dataset.kind(**arguments, pipeline=[])
    if "img_path" not in built.get_data_info(0):
        return False
    classes = built.metainfo.get("classes") or ()
    palette = built.metainfo.get("palette") or ()
    if len(palette) < len(classes):
        palette = default_palette(len(classes))
    samples = [built.get_data_info(place) for place in _choose(built)]
    legend = _legend(_shown(samples), classes, palette)
    rows = -(-len(samples) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE, rows * (TILE + _TEXT) + legend.height), "white")
    sheet.paste(legend, (0, rows * (TILE + _TEXT)))
    for number, info in enumerate(samples):
        place = (number % COLUMNS * TILE, number // COLUMNS * (TILE + _TEXT))
        sheet.paste(_tile(info, classes, palette), place)
        caption = Path(info["img_path"]).name
        ImageDraw.Draw(sheet).text((place[0] + 4, place[1] + TILE + 2), caption[-48:], "black", _font(14))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        sheet.save(file, "JPEG", quality=90)
    return True


def _choose(built: BaseDataset) -> list[int]:
    """Places of images: for each class the first that has it, then a regular sample."""
    number = COLUMNS * ROWS
    chosen: dict[int, None] = {}
    seen: set[int] = set()
    for place in range(min(len(built), 5000)):
        labels = {label for entry in built.get_data_info(place).get("instances", ()) for label in _labels(entry)}
        if labels - seen and len(chosen) < number // 2:
            seen |= labels
            chosen[place] = None
    for place in np.linspace(0, len(built) - 1, min(number, len(built))).round().astype(int).tolist():
        if len(chosen) < number:
            chosen[place] = None
    return sorted(chosen)


def _labels(entry: dict) -> list[int]:
    label = entry["bbox_label"]
    return [label] if isinstance(label, int) else list(label)


def _tile(info: dict, classes: Sequence[str], palette: Sequence[tuple[int, int, int]]) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), (235, 235, 235))
    try:
        pixels = read_image(info["img_path"])
        pixels = _with_masks(pixels, info, palette)
        pixels = _with_map(pixels, info, palette)
    except UnreadableImageError as error:
        ImageDraw.Draw(tile).text((8, 8), str(error), "red", _font(14))
        return tile
    height, width = pixels.shape[:2]
    scale = (TILE - 4) / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    canvas = ImageDraw.Draw(image)
    for entry in info.get("instances", ()):
        if isinstance(entry["bbox_label"], int):
            label = entry["bbox_label"]
            _draw_box(canvas, np.array(entry["bbox"], float) * scale, entry, classes[label], tuple(palette[label]))
    tile.paste(image, (2, 2))
    return tile


def _draw_box(canvas: ImageDraw.ImageDraw, box: np.ndarray, entry: dict, name: str, colour: tuple) -> None:
    if len(box) == 4:
        x1, y1, x2, y2 = box
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    else:
        corners = box.reshape(4, 2)
    outline = [tuple(point) for point in (*corners, corners[0])]
    if entry.get("ignore_flag"):
        canvas.line(outline, colour, 1)
        return
    canvas.line(outline, colour, 2)
    place = (corners[:, 0].min() + 2, corners[:, 1].min() + 1)
    frame = canvas.textbbox(place, name, _font(12))
    if frame[2] > corners[:, 0].max() or frame[3] > corners[:, 1].max():
        return  # it would hide the object
    canvas.rectangle(frame, colour)
    canvas.text(place, name, "white" if sum(colour) < 380 else "black", _font(12))


def _shown(samples: Sequence[dict]) -> list[int]:
    """Labels that occur in samples of boxes or segments; of maps of classes, which say nothing of it, none."""
    found = {label for info in samples for entry in info.get("instances", ()) for label in _labels(entry)}
    return sorted(found | {segment["category"] for info in samples for segment in info.get("segments_info", ())})


def _legend(labels: Sequence[int], classes: Sequence[str], palette: Sequence) -> Image.Image:
    """Names beside their colours, in as many lines as they need."""
    width = COLUMNS * TILE
    canvas = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    places, x, y = [], 6, 6
    for label in list(labels or range(len(classes)))[:_LEGEND]:
        length = canvas.textlength(classes[label], _font(14)) + 36
        if x + length > width:
            x, y = 6, y + _TEXT
        places.append((x, y, label))
        x += length
    legend = Image.new("RGB", (width, y + _TEXT if places else 0), "white")
    canvas = ImageDraw.Draw(legend)
    for x, y, label in places:
        canvas.rectangle((x, y, x + 14, y + 14), tuple(palette[label]))
        canvas.text((x + 19, y - 1), classes[label], "black", _font(14))
    return legend


def _with_masks(pixels: np.ndarray, info: dict, palette: Sequence) -> np.ndarray:
    height, width = pixels.shape[:2]
    for entry in info.get("instances", ()):
        given = entry.get("mask")
        if isinstance(given, list):
            given = [polygon for polygon in given if len(polygon) >= 6]
        if not given:
            continue
        plain = isinstance(given, list) or isinstance(given["counts"], list)
        code = rle.frPyObjects(given, height, width) if plain else given
        mask = rle.decode(rle.merge(code) if isinstance(code, list) else code).astype(bool)
        pixels = _blend(pixels, mask, palette[entry["bbox_label"]])
    return pixels


def _with_map(pixels: np.ndarray, info: dict, palette: Sequence) -> np.ndarray:
    if not info.get("seg_map_path"):
        return pixels
    if "segments_info" in info:
        ids = rgb2id(read_image(info["seg_map_path"]))
        places = [(ids == segment["id"], segment["category"]) for segment in info["segments_info"]]
    else:
        stored = read_seg_map(info["seg_map_path"])
        first = 1 if info.get("reduce_zero_label") else 0
        places = [(stored == value, value - first) for value in np.unique(stored) if first <= value < _IGNORED]
    for place, label in places:
        if label < len(palette):
            pixels = _blend(pixels, place, palette[label])
    return pixels


def _blend(pixels: np.ndarray, place: np.ndarray, colour: Sequence[int]) -> np.ndarray:
    mixed = pixels.copy()
    mixed[place] = ((1 - _OPACITY) * pixels[place] + _OPACITY * np.array(colour)).astype(np.uint8)
    return mixed


def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)
