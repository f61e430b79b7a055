"""Cutting large aerial images and their labels into square patches, as DOTA's detectors are trained and tested on.

A patch keeps the image's resolution: a rate r divides the side and the gap of the windows by r, and the training
pipeline resizes all patches to one size. At most one decoded image is in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from math import ceil, inf
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from perception.datasets.dota import Labels, Patch, format_labels, read_labels
from perception.datasets.synthetic.folder import Recipe, Summary, publish
from perception.ops.polygons import area_within_rectangle, polygon_area

VERSION = 1  # to be raised by every change that alters the files

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

CUT_DIFFICULTY = 2
"""The difficulty of objects that reach out of their window."""

# PIL guards against hostile uploads; a single scene may well have 16384 x 16384 pixels.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class SplitParams:
    """How windows are laid out.

    Attributes:
        sizes, gaps: side of the windows and overlap of neighbours in pixels; one gap for each size.
        rates: every size and gap is divided by each of these.
        image_share: a window is kept if more than this share of it is image; of windows that all have less the best.
        object_share: an object belongs to a window that holds at least this share of its area.
        pad: colour (R, G, B) of what lies beyond the image.
    """

    sizes: tuple[int, ...] = (1024,)
    gaps: tuple[int, ...] = (200,)
    rates: tuple[float, ...] = (1.0,)
    image_share: float = 0.6
    object_share: float = 0.7
    pad: tuple[int, int, int] = (124, 116, 104)

    def __post_init__(self):
        if not self.sizes or len(self.sizes) != len(self.gaps):
            raise ValueError(f"as many gaps as sizes are needed, not sizes {self.sizes} with gaps {self.gaps}")
        if not self.rates or not all(0 < rate < inf for rate in self.rates):
            raise ValueError(f"rates must be positive and finite, not {self.rates}")
        for size, gap in self.windows():
            if not 0 <= gap < size:
                raise ValueError(f"a gap must be at least 0 and below the size, not {gap} with size {size}")
        for name in ("image_share", "object_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        if len(self.pad) != 3 or not all(0 <= value <= 255 for value in self.pad):
            raise ValueError(f"pad must be three values from 0 to 255, not {self.pad}")

    def windows(self) -> list[tuple[int, int]]:
        """Side and gap in pixels of all windows, by rate."""
        return [(int(size / rate), int(gap / rate)) for rate in self.rates for size, gap in zip(self.sizes, self.gaps)]


# ---------------------------------------------------------------------------------------------------------- geometry


def windows_of(width: int, height: int, params: SplitParams) -> np.ndarray:
    """Windows (x1, y1, x2, y2) `[W, 4]` over an image: x in the outer loop, y in the inner one.

    The last window of a row or a column is shifted back to the border; where the image is smaller than the window, it
    starts at 0 and reaches beyond the image.

    Example:
        >>> windows_of(1500, 900, SplitParams()).tolist()  # of 1024 pixels that overlap by 200
        [[0, 0, 1024, 1024], [476, 0, 1500, 1024]]
    """
    grids = []
    for size, gap in params.windows():
        starts = [(x, y) for x in _starts(width, size, gap) for y in _starts(height, size, gap)]
        grids.append(np.array([(x, y, x + size, y + size) for x, y in starts], np.int64))
    windows = np.concatenate(grids)
    inside = np.minimum(windows[:, 2:], (width, height)) - windows[:, :2]
    shares = inside.prod(axis=1) / (windows[:, 2:] - windows[:, :2]).prod(axis=1)
    kept = shares > params.image_share
    return windows[kept if kept.any() else shares > shares.max() - 0.01]


def _starts(length: int, size: int, gap: int) -> list[int]:
    if length <= size:
        return [0]
    step = size - gap
    return [min(step * k, length - size) for k in range(ceil((length - size) / step) + 1)]


def shares_inside(corners: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """The share of each polygon's area that lies in each window: `[N, 4, 2]`, `[W, 4]` -> `[N, W]`.

    A polygon without area lies nowhere.
    """
    low, high = corners.min(axis=1), corners.max(axis=1)
    touching = (low[:, None] < windows[None, :, 2:]).all(axis=2) & (high[:, None] > windows[None, :, :2]).all(axis=2)
    first, second = np.nonzero(touching)
    polygons, rectangles = corners[first], windows[second].astype(np.float64)
    centres = (rectangles[:, :2] + rectangles[:, 2:]) / 2
    half_sizes = (rectangles[:, 2:] - rectangles[:, :2]) / 2
    shared = area_within_rectangle(torch.from_numpy(polygons - centres[:, None]), torch.from_numpy(half_sizes))
    areas = polygon_area(torch.from_numpy(corners)).abs().numpy()[first]
    shares = np.zeros(touching.shape)
    shares[first, second] = np.divide(shared.numpy(), areas, out=np.zeros_like(areas), where=areas > 1e-6)
    return shares.clip(0, 1)


def labels_in(labels: Labels, window: np.ndarray, shares: np.ndarray, params: SplitParams) -> Labels:
    """The objects of one window, whole, in the window's coordinates.

    Args:
        window: (x1, y1, x2, y2).
        shares: `[N]` share of each object in the window.
    """
    kept = np.flatnonzero(shares >= params.object_share)
    corners = labels.corners[kept]
    cut = ((corners < window[:2]) | (corners > window[2:])).any(axis=(1, 2))
    levels = (CUT_DIFFICULTY if reaches_out else labels.difficulty[k] for k, reaches_out in zip(kept, cut))
    return Labels(corners - window[:2], tuple(labels.classes[k] for k in kept), tuple(levels))


# ------------------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class Source:
    """An image file and its label file (None: there are no labels)."""

    image: Path
    labels: Path | None


def find_sources(folders: Sequence[Path], labels: str | None) -> list[Source]:
    """The images of `FOLDER/images`, in the order of their names, with label files of `FOLDER/LABELS`.

    Args:
        folders: for instance the training and the validation images of DOTA.
        labels: the label folder's name; None for images without labels.

    Raises:
        ValueError: a folder is missing or empty, or two images have the same name.
    """
    sources: dict[str, Source] = {}
    for folder in map(Path, folders):
        for needed in ("images",) if labels is None else ("images", labels):
            if not (folder / needed).is_dir():
                raise ValueError(f"{folder / needed} is missing")
        found = [path for path in sorted((folder / "images").iterdir()) if path.suffix.lower() in SUFFIXES]
        if not found:
            raise ValueError(f"{folder / 'images'} holds no image ({', '.join(SUFFIXES)})")
        for path in found:
            if path.stem in sources:
                raise ValueError(f"{path} and {sources[path.stem].image} have the same name")
            sources[path.stem] = Source(path, folder / labels / f"{path.stem}.txt" if labels else None)
    return list(sources.values())


def split(
    sources: Sequence[Source],
    out: Path,
    params: SplitParams,
    *,
    overwrite: bool = False,
    workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
    on_problem: Callable[[str], None] | None = None,
) -> Summary:
    """Write `out/images/*.png` and, if there are labels, `out/annfiles/*.txt`.

    Nothing is visible at `out` before everything is there. A complete set that was made of the same files with the same
    parameters is left as it is. An image that cannot be read, or whose labels cannot, is left out and counted as
    `unreadable`.

    Args:
        overwrite: replace a set that was made of other files or with other parameters.
        workers: threads that encode patches.
        on_progress: called with the number of finished images and their total.
        on_problem: called with a sentence for each image that is left out.

    Raises:
        FileExistsError: `out` holds something else.
        OSError: a file cannot be written.
        ValueError: no image could be read.
    """

    def fill(root: Path) -> dict[str, dict[str, int]]:
        counts = {"images": 0, "patches": 0, "objects": 0, "unreadable": 0}
        for folder in ("images", "annfiles") if sources[0].labels else ("images",):
            (root / folder).mkdir()
        with ThreadPoolExecutor(workers) as pool:
            for done, source in enumerate(sources, start=1):
                try:
                    image, labels = _read(source)
                except (OSError, ValueError, SyntaxError) as error:  # PIL calls some broken PNGs a SyntaxError
                    counts["unreadable"] += 1
                    if on_problem is not None:
                        on_problem(f"{source.image} is left out: {error}")
                else:
                    write_one = _patch_writer(root, source, image, params.pad)
                    objects = list(pool.map(write_one, _patches(image, labels, params)))
                    counts["images"] += 1
                    counts["patches"] += len(objects)
                    counts["objects"] += sum(objects)
                    # What the next one needs is not added to this one's memory.
                    del image, write_one
                if on_progress is not None:
                    on_progress(done, len(sources))
        if not counts["images"]:
            raise ValueError(f"none of {len(sources)} images could be read")
        return {"patches": counts}

    # Through JSON, as the recorded parameters that these are compared with went.
    values = json.loads(json.dumps(asdict(params)))
    recipe = Recipe("dota_split", VERSION, {**values, "files": _fingerprint(sources)})
    return publish(Path(out), recipe, fill, overwrite=overwrite)


def _fingerprint(sources: Sequence[Source]) -> str:
    """Changes when a file is added, removed or written anew."""
    digest = hashlib.sha256()
    for path in (path for source in sources for path in (source.image, source.labels) if path is not None):
        state = path.stat() if path.exists() else None
        digest.update(repr((path.name, state and (state.st_size, state.st_mtime_ns))).encode())
    return digest.hexdigest()[:16]


def _read(source: Source) -> tuple[Image.Image, Labels | None]:
    labels = None if source.labels is None else read_labels(source.labels)
    image = Image.open(source.image)
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        raise ValueError(f"pixels of more than 8 bits a channel (mode {image.mode}) are not supported")
    image.load()
    return image, labels


def _patches(
    image: Image.Image, labels: Labels | None, params: SplitParams
) -> Iterator[tuple[np.ndarray, Labels | None]]:
    windows = windows_of(*image.size, params)
    shares = None if labels is None else shares_inside(labels.corners, windows)
    for k, window in enumerate(windows):
        yield window, None if labels is None else labels_in(labels, window, shares[:, k], params)


def _patch_writer(root: Path, source: Source, image: Image.Image, pad: tuple[int, int, int]) -> Callable:
    """A function that writes one patch and returns the number of its objects."""

    def write(patch: tuple[np.ndarray, Labels | None]) -> int:
        (x1, y1, x2, y2), labels = (int(value) for value in patch[0]), patch[1]
        name = Patch(source.image.stem, x2 - x1, x1, y1).name
        crop = image.crop((x1, y1, min(x2, image.width), min(y2, image.height))).convert("RGB")
        pixels = np.full((y2 - y1, x2 - x1, 3), pad[::-1], np.uint8)
        pixels[: crop.height, : crop.width] = np.asarray(crop)[..., ::-1]
        _, encoded = cv2.imencode(".png", pixels)
        (root / "images" / f"{name}.png").write_bytes(encoded.tobytes())
        if labels is None:
            return 0
        (root / "annfiles" / f"{name}.txt").write_text(format_labels(labels), encoding="utf-8")
        return len(labels.classes)

    return write
