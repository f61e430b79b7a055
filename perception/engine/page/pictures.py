"""Files about one item: a thumbnail, a picture for the large view, and what else that needs."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from perception.datasets.images import open_without_limit
from perception.engine.atomic import replacing

FOLDER = "page"
THUMBNAIL = (320, 240)
"""Pixels at most."""
VIEW = 2048
"""Pixels a side at most."""
INDEX = 1024
"""Pixels a side at most of maps of indices."""

_THUMBNAIL_QUALITY, _VIEW_QUALITY = 78, 82
_SMALL = 800  # pixels a side


def key_of(name: str) -> str:
    """What the files of an item are called by: the same on every system, whatever its name holds."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
    return f"{digest[:2]}/{digest[2:18]}"


def thumbnail_file(name: str) -> str:
    """Below the page's folder, as the following."""
    return f"{FOLDER}/{key_of(name)}.jpg"


def view_file(name: str) -> str:
    return f"{FOLDER}/{key_of(name)}.view.jpg"


def scene_file(name: str) -> str:
    return f"{FOLDER}/{key_of(name)}.js"


def files_of(name: str) -> tuple[str, ...]:
    """All files that an item may have."""
    return thumbnail_file(name), view_file(name), scene_file(name)


def write_thumbnail(root: Path, name: str, picture: Path | np.ndarray) -> None:
    """Makes a thumbnail of a file, or of uint8 (height, width, 3) RGB."""
    with open_without_limit(picture) if isinstance(picture, Path) else Image.fromarray(picture) as image:
        image.draft("RGB", (2 * THUMBNAIL[0], 2 * THUMBNAIL[1]))
        small = image.convert("RGB")
        small.thumbnail(THUMBNAIL)
    _save(root / thumbnail_file(name), small, _THUMBNAIL_QUALITY)


def write_view(root: Path, name: str, pixels: np.ndarray) -> None:
    """Makes the picture of the large view of uint8 (height, width, 3) RGB."""
    image = Image.fromarray(pixels)
    image.thumbnail((VIEW, VIEW))
    _save(root / view_file(name), image, _VIEW_QUALITY)


def write_scene(root: Path, name: str, scene: dict[str, Any]) -> None:
    """Writes what the large view needs beside picture and record: JSON, in a script, which pages on a disk may load."""
    target = root / scene_file(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as file:
        file.write(f'page.scene("{key_of(name)}", {json.dumps(scene, separators=(",", ":"))})\n'.encode())


def index_png(values: np.ndarray, count: int) -> str:
    """A map of indices below `count`, integers (height, width), at most `INDEX` pixels a side, as the URL of a PNG.

    It is grey, or with more than 256 of them red is the index's low byte and green its high one.
    """
    step = max(1, -(-max(values.shape) // INDEX))
    values = values[::step, ::step]
    if count <= 256:
        image = Image.fromarray(values.astype(np.uint8))
    else:
        image = Image.fromarray(np.stack([values & 255, values >> 8, np.zeros_like(values)], -1).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _save(target: Path, image: Image.Image, quality: int) -> None:
    # Halved colour resolution smears the few pixels of a small picture.
    subsampling = "4:2:0" if max(image.size) > _SMALL else "4:4:4"
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as file:
        image.save(file, "JPEG", quality=quality, subsampling=subsampling)
