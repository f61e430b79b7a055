"""Small annotation files in COCO's format, with pictures that they fit, and siblings with one thing wrong."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "bird")


def content(num_images: int = 4) -> dict:
    """Images of 40 x 30 pixels with a cat each, a dog on every second and a bird on the first."""
    images, annotations = [], []
    for number in range(1, num_images + 1):
        images.append({"id": number, "file_name": f"{number}.png", "width": 40, "height": 30})
        for category in (1, 2, 3)[: 1 + (number % 2) + (number == 1)]:
            x, y, w, h = 3 * category, 2 * category, 8 + number, 6
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(folder: Path, change: Callable[[dict], object] | None = None, pictures: bool = True, **kwargs) -> Path:
    """Writes `content` after `change` as FOLDER/labels.json, with its pictures in FOLDER/images."""
    data = content(**kwargs)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    if pictures:
        for number, image in enumerate(data["images"]):
            pixels = np.full((image["height"], image["width"], 3), 40 * number % 256, np.uint8)
            Image.fromarray(pixels).save(folder / "images" / image["file_name"])
    if change is not None:
        data = copy.deepcopy(data)
        change(data)
    file = folder / "labels.json"
    file.write_text(json.dumps(data))
    return file


def write_maps(folder: Path, number: int = 4) -> None:
    """Writes panoptic maps of 50 pixels with code 5 and 500 with code 6 as FOLDER/map_N.png."""
    folder.mkdir()
    codes = np.zeros((30, 40, 3), np.uint8)
    codes[:5, :10, 0], codes[10:30, :25, 0] = 5, 6
    for image in range(1, number + 1):
        Image.fromarray(codes).save(folder / f"map_{image}.png")
