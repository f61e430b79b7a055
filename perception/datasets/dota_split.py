"""Cutting large aerial images and their labels into square patches, as DOTA's detectors are trained and tested on.

A patch keeps the image's resolution: a rate r divides the side and the gap of the windows by r, and the training
pipeline resizes all patches to one size. Images are read window by window where the caller has a reader that can, and
are upright, as :mod:`perception.datasets.images` says; labels are those of the upright image.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

import cv2
import numpy as np

from perception.datasets.dota import Labels, Patch, format_labels, read_labels
from perception.datasets.images import IMAGE_SUFFIXES, UnreadableImageError
from perception.datasets.synthetic.folder import Recipe, Summary, publish
from perception.datasets.windows import ImageWindows, WholeImage, Window
from perception.geometry.windows import polygons_of, shares_inside, sliding_windows, with_enough_image

VERSION = 2  # to be raised by every change that alters the files

CUT_DIFFICULTY = 2
"""The difficulty of objects that reach out of their window."""


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
    grids = [sliding_windows(width, height, size, gap) for size, gap in params.windows()]
    return with_enough_image(np.concatenate(grids), width, height, params.image_share)


def labels_in(labels: Labels, window: np.ndarray, shares: np.ndarray, params: SplitParams) -> Labels:
    """The objects of one window, whole, in the window's coordinates.

    Args:
        window: (x1, y1, x2, y2).
        shares: `[N]` share of each object in the window.
    """
    kept, corners, cut = polygons_of(labels.corners, window, shares, params.object_share)
    levels = (CUT_DIFFICULTY if reaches_out else labels.difficulty[k] for k, reaches_out in zip(kept, cut))
    return Labels(corners, tuple(labels.classes[k] for k in kept), tuple(levels))


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
        found = [path for path in sorted((folder / "images").iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES]
        if not found:
            raise ValueError(f"{folder / 'images'} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        for path in found:
            if path.stem in sources:
                raise ValueError(f"{path} and {sources[path.stem].image} have the same name")
            sources[path.stem] = Source(path, folder / labels / f"{path.stem}.txt" if labels else None)
    return list(sources.values())


def labels_without_image(folders: Sequence[Path], labels: str, sources: Sequence[Source]) -> list[Path]:
    """Label files of `FOLDER/LABELS` that belong to none of the sources, in the order of their names."""
    used = {source.labels for source in sources}
    found = (path for folder in map(Path, folders) for path in sorted((folder / labels).glob("*.txt")))
    return [path for path in found if path not in used]


def split(
    sources: Sequence[Source],
    out: Path,
    params: SplitParams,
    *,
    open_image: Callable[[Path], ImageWindows] = WholeImage,
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
        open_image: opens an image file, or raises `UnreadableImageError`.
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
            writer = _PatchWriter(root, params.pad, pool, at_once=2 * workers)
            for done, source in enumerate(sources, start=1):
                try:
                    labels = None if source.labels is None else read_labels(source.labels)
                except (OSError, ValueError) as error:
                    problem: Exception | None = error
                else:
                    problem = _cut(source.image, open_image, labels, params, writer)
                if problem is None:
                    counts["images"] += 1
                else:
                    counts["unreadable"] += 1
                    if on_problem is not None:
                        on_problem(f"{source.image} is left out: {problem}")
                if on_progress is not None:
                    on_progress(done, len(sources))
            counts.update(patches=writer.patches, objects=writer.objects)
        if not counts["images"]:
            raise ValueError(f"none of {len(sources)} images could be read")
        return {"patches": counts}

    # Through JSON, as the recorded parameters that these are compared with went.
    values = json.loads(json.dumps(asdict(params)))
    recipe = Recipe("dota_split", VERSION, {**values, "files": fingerprint(sources)})
    return publish(Path(out), recipe, fill, overwrite=overwrite)


def fingerprint(sources: Sequence[Source]) -> str:
    """Changes when a file is added, removed or written anew."""
    digest = hashlib.sha256()
    for path in (path for source in sources for path in (source.image, source.labels) if path is not None):
        state = path.stat() if path.exists() else None
        digest.update(repr((path.name, state and (state.st_size, state.st_mtime_ns))).encode())
    return digest.hexdigest()[:16]


def encode_padded(
    pixels: np.ndarray, shape: tuple[int, int], pad: tuple[int, int, int], start: tuple[int, int] = (0, 0)
) -> bytes:
    """A PNG file of a shape (rows, columns) with RGB pixels from a start (row, column) on and a colour around them."""
    padded = np.full((*shape, 3), pad[::-1], np.uint8)
    padded[start[0] : start[0] + len(pixels), start[1] : start[1] + pixels.shape[1]] = pixels[..., ::-1]
    return cv2.imencode(".png", padded)[1].tobytes()


def _cut(
    path: Path,
    open_image: Callable[[Path], ImageWindows],
    labels: Labels | None,
    params: SplitParams,
    writer: _PatchWriter,
) -> UnreadableImageError | None:
    """Write the patches of one image, or none of them and return why."""
    try:
        image = open_image(path)
    except UnreadableImageError as error:
        return error
    try:
        for window, inside in _patches(image.width, image.height, labels, params):
            x1, y1, x2, y2 = (int(value) for value in window)
            pixels = image.read(Window(x1, y1, min(x2, image.width) - x1, min(y2, image.height) - y1))
            writer.add(Patch(path.stem, x2 - x1, x1, y1), pixels, inside)
    except UnreadableImageError as error:
        writer.drop()
        return error
    finally:
        image.close()
    writer.keep()
    return None


def _patches(
    width: int, height: int, labels: Labels | None, params: SplitParams
) -> Iterator[tuple[np.ndarray, Labels | None]]:
    """Windows with what they hold, from the top down, as readers of rows want it."""
    windows = windows_of(width, height, params)
    shares = None if labels is None else shares_inside(labels.corners, windows)
    for k in np.argsort(windows[:, 1], kind="stable"):
        yield windows[k], None if labels is None else labels_in(labels, windows[k], shares[:, k], params)


class _PatchWriter:
    """Writes the patches of one image after another, in threads, and can take back those of the current one."""

    def __init__(self, root: Path, pad: tuple[int, int, int], pool: ThreadPoolExecutor, at_once: int):
        self._root, self._pad, self._pool, self._at_once = root, pad, pool, at_once
        self._names: list[str] = []
        self._pending: deque[Future[None]] = deque()
        self._new_objects = 0
        self.patches = self.objects = 0

    def add(self, patch: Patch, pixels: np.ndarray, labels: Labels | None) -> None:
        """Have a patch written; waits when many are under way already."""
        self._names.append(patch.name)
        self._new_objects += 0 if labels is None else len(labels.classes)
        self._pending.append(self._pool.submit(self._write, patch, pixels, labels))
        if len(self._pending) > self._at_once:
            self._pending.popleft().result()

    def keep(self) -> None:
        """Count the patches of an image that is done."""
        self._wait()
        self.patches += len(self._names)
        self.objects += self._new_objects
        self._names, self._new_objects = [], 0

    def drop(self) -> None:
        """Remove the patches of an image that turned out to be damaged."""
        self._wait()
        for name in self._names:
            (self._root / "images" / f"{name}.png").unlink()
            (self._root / "annfiles" / f"{name}.txt").unlink(missing_ok=True)
        self._names, self._new_objects = [], 0

    def _wait(self) -> None:
        while self._pending:
            self._pending.popleft().result()

    def _write(self, patch: Patch, pixels: np.ndarray, labels: Labels | None) -> None:
        encoded = encode_padded(pixels, (patch.size, patch.size), self._pad)
        (self._root / "images" / f"{patch.name}.png").write_bytes(encoded)
        if labels is not None:
            (self._root / "annfiles" / f"{patch.name}.txt").write_text(format_labels(labels), encoding="utf-8")
