"""Patches of every level of large images, and what is around those that show long objects, as HBD-Net learns from.

Reduced images are never files: of each image they are made in memory, its native pixels are read window by window, and
only patches and crops of at most a window's size are written:

* ``native/``, ``down2/``, ``down4/``, ...: ``images/PATCH.png`` and ``annfiles/PATCH.txt`` of each level;
* ``native/contexts/``: of native patches with long objects ``PATCH.json``, which says where the crops around it lie,
  and of each crop ``PATCH__down2.png`` and ``PATCH__down2.txt``.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from perception.datasets.dota import Labels, Patch, format_labels, read_labels
from perception.datasets.dota_split import Source, SplitParams, encode_padded, fingerprint, labels_in
from perception.datasets.images import UnreadableImageError
from perception.datasets.synthetic.folder import Recipe, Summary, publish_resumable
from perception.datasets.windows import ImageWindows, Window
from perception.engine.atomic import replacing
from perception.evaluation.length_ap import long_sides
from perception.geometry.pyramid import Context, Level, contexts_of, pyramid
from perception.geometry.windows import polygons_of, shares_inside

VERSION = 1  # to be raised by every change that alters the files
MOST_REDUCED = 16
RESAMPLING = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR}
"""How pixels are reduced: the mean of all, or, as released, of the middle four alone; at half the size both agree."""

_JOURNAL = ".done"
_ROWS_AT_ONCE = 16 * MOST_REDUCED


@dataclass(frozen=True)
class PyramidParams:
    """How images are cut.

    Attributes:
        size, gap: side of the windows and overlap of neighbours in pixels, on every level.
        levels: "filled": those of which both sides fill a window, down to a sixteenth, as the released recipe trains
            on; "all": until the image fits into a window, as it is tested.
        image_share: a window is kept if more than this share of it is image; of windows that all have less the best.
        object_share: an object belongs to a patch that holds at least this share of its area.
        context_share: the same of crops.
        context_threshold: native patches with an object of at least so many pixels get crops; 0: all patches.
        pad: colour (R, G, B) of what lies beyond the image.
        resampling: a key of `RESAMPLING`.
    """

    size: int = 1024
    gap: int = 200
    levels: str = "filled"
    image_share: float = 0.6
    object_share: float = 0.3
    context_share: float = 0.1
    context_threshold: float = 300.0
    pad: tuple[int, int, int] = (124, 116, 104)
    resampling: str = "area"

    def __post_init__(self):
        self.windows()  # has its own say about most of these
        if self.levels not in ("filled", "all"):
            raise ValueError(f"levels must be filled or all, not {self.levels!r}")
        if not 0 <= self.context_share <= 1:
            raise ValueError(f"context_share must be between 0 and 1, not {self.context_share}")
        if not self.context_threshold >= 0:
            raise ValueError(f"context_threshold must be at least 0, not {self.context_threshold}")
        if self.resampling not in RESAMPLING:
            raise ValueError(f"resampling must be one of {', '.join(RESAMPLING)}, not {self.resampling!r}")

    def windows(self) -> SplitParams:
        """The same for the windows of one level."""
        return SplitParams(
            sizes=(self.size,),
            gaps=(self.gap,),
            image_share=self.image_share,
            object_share=self.object_share,
            pad=self.pad,
        )

    def levels_of(self, width: int, height: int) -> list[Level]:
        """The levels of an image of which patches are cut, the native one first.

        Example:
            >>> [level.factor for level in PyramidParams().levels_of(5000, 2100)]
            [1, 2]
        """
        levels = pyramid(width, height, self.size)
        if self.levels == "all":
            return levels
        whole = [level for level in levels[1:] if min(level.width, level.height) >= self.size]
        return [levels[0], *(level for level in whole if level.factor <= MOST_REDUCED)]


def level_folder(factor: int) -> str:
    """The folder of a level's patches: `native`, `down2`, ..."""
    return "native" if factor == 1 else f"down{factor}"


def split(
    sources: Sequence[Source],
    out: Path,
    params: PyramidParams,
    *,
    open_image: Callable[[Path], ImageWindows],
    overwrite: bool = False,
    workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
    on_problem: Callable[[str], None] | None = None,
) -> Summary:
    """Cut images; see the module's head for what is written.

    Nothing is visible at `out` before everything is there; a run that was interrupted goes on behind the last image
    that it finished. A complete set that was made of the same files with the same parameters is left as it is. An image
    that cannot be read, or whose labels cannot, is left out and counted as `unreadable`.

    Args:
        open_image: opens an image file, or raises `UnreadableImageError`; windows are asked for from the top down.
        overwrite: replace a set that was made of other files or with other parameters.
        workers: threads that encode patches.
        on_progress: called with the number of finished images and their total.
        on_problem: called with a sentence for each image that is left out.

    Returns:
        Counts: `images` and `unreadable` of all, and `patches`, `objects` and `contexts` of each level.

    Raises:
        FileExistsError: `out` holds something else.
        OSError: a file cannot be written.
        ValueError: no image could be read.
    """

    def fill(root: Path) -> dict[str, dict[str, int]]:
        (root / _JOURNAL).mkdir(exist_ok=True)
        total, readable = Counter(), 0
        with ThreadPoolExecutor(workers) as pool:
            for done, source in enumerate(sources, start=1):
                note = root / _JOURNAL / f"{source.image.stem}.json"
                counts = json.loads(note.read_text()) if note.exists() else None
                if counts is None:
                    files = _Files(root, pool, at_once=2 * workers)
                    try:
                        labels = None if source.labels is None else read_labels(source.labels)
                        counts = _cut(source.image, labels, params, open_image, files)
                        files.wait()
                    except (UnreadableImageError, OSError, ValueError) as error:
                        files.drop()
                        if isinstance(error, OSError) and not _concerns(error, source):
                            raise
                        if on_problem is not None:
                            on_problem(f"{source.image} is left out: {error}")
                    else:
                        with replacing(note) as file:
                            file.write(json.dumps(counts).encode())
                if counts is not None:
                    readable += 1
                    total.update(counts)
                if on_progress is not None:
                    on_progress(done, len(sources))
        if not readable:
            raise ValueError(f"none of {len(sources)} images could be read")
        shutil.rmtree(root / _JOURNAL)
        return {"all": {"images": readable, "unreadable": len(sources) - readable}, **_by_level(total)}

    # Through JSON, as the recorded parameters that these are compared with went.
    values = json.loads(json.dumps(asdict(params)))
    recipe = Recipe("pyramid_split", VERSION, {**values, "files": fingerprint(sources)})
    return publish_resumable(Path(out), recipe, fill, overwrite=overwrite)


def _by_level(total: Counter) -> dict[str, dict[str, int]]:
    levels = sorted({name.partition(" ")[0] for name in total}, key=lambda name: (name != "native", len(name), name))
    return {
        level: {what: total[f"{level} {what}"] for what in ("images", "patches", "objects", "contexts")}
        for level in levels
    }


def _concerns(error: OSError, source: Source) -> bool:
    """Whether it is about a file that was to be read, and not about one that was to be written."""
    return error.filename in (str(source.image), str(source.labels))


# --------------------------------------------------------------------------------------------------------- one image


def _cut(
    path: Path,
    labels: Labels | None,
    params: PyramidParams,
    open_image: Callable[[Path], ImageWindows],
    files: _Files,
) -> Counter:
    counts: Counter = Counter()
    with closing(open_image(path)) as image:
        width, height = image.width, image.height
        levels = params.levels_of(width, height)
        factors = {2, 4} | {level.factor for level in levels[1:]}
        reduced = reduced_images(image, sorted(factors), params.resampling)
    for level in levels[1:]:
        found = _scaled(labels, level.factor)
        for patch, inside in _patches(path.stem, level, found, params):
            pixels = reduced[level.factor][patch.y : patch.y + patch.size, patch.x : patch.x + patch.size]
            files.add_patch(level.factor, patch, pixels, inside, params.pad)
            _count(counts, level.factor, inside)
        counts[f"{level_folder(level.factor)} images"] += 1
    with closing(open_image(path)) as image:
        for patch, inside in _patches(path.stem, levels[0], labels, params):
            right, bottom = min(patch.x + patch.size, width), min(patch.y + patch.size, height)
            pixels = image.read(Window(patch.x, patch.y, right - patch.x, bottom - patch.y))
            files.add_patch(1, patch, pixels.copy(), inside, params.pad)
            _count(counts, 1, inside)
            if _wants_context(inside, params.context_threshold):
                contexts = contexts_of(width, height, patch.x, patch.y, params.size)
                for context in contexts:
                    within = _objects_of(context, _scaled(labels, context.factor), params.context_share)
                    files.add_context(patch, context, reduced[context.factor], within, params.pad)
                files.add_places(patch, contexts)
                counts["native contexts"] += 1
    counts["native images"] += 1
    return counts


def reduced_images(image: ImageWindows, factors: Sequence[int], resampling: str) -> dict[int, np.ndarray]:
    """The image at fractions of its size, RGB, by factors that are powers of two up to 16; it is read once.

    A factor of k makes floor(width / k) x floor(height / k) pixels, each of k x k; what is left over has no place.
    """
    reduced = {factor: np.empty((image.height // factor, image.width // factor, 3), np.uint8) for factor in factors}
    for top in range(0, image.height, _ROWS_AT_ONCE):
        rows = image.read(Window(0, top, image.width, min(_ROWS_AT_ONCE, image.height - top)))
        for factor, pixels in reduced.items():
            height, width = rows.shape[0] // factor, image.width // factor
            if height and width:
                even = np.ascontiguousarray(rows[: height * factor, : width * factor])
                part = cv2.resize(even, (width, height), interpolation=RESAMPLING[resampling])
                pixels[top // factor : top // factor + height] = part
    return reduced


def _patches(
    name: str, level: Level, labels: Labels | None, params: PyramidParams
) -> Iterator[tuple[Patch, Labels | None]]:
    """Patches of a level with what they hold, from the top down, as readers of rows want it."""
    windows = level.windows(params.size, params.gap, params.image_share)
    shares = None if labels is None else shares_inside(labels.corners, windows)
    for k in np.argsort(windows[:, 1], kind="stable"):
        inside = None if labels is None else labels_in(labels, windows[k], shares[:, k], params.windows())
        x, y = windows[k, :2].tolist()
        yield Patch(name, params.size, x, y), inside


def _objects_of(context: Context, labels: Labels | None, share: float) -> Labels | None:
    """Whole, in the crop's pixels, with the difficulty that they have in the image."""
    if labels is None:
        return None
    window = np.array([context.left, context.top, context.left + context.width, context.top + context.height])
    kept, corners, _ = polygons_of(labels.corners, window, shares_inside(labels.corners, window[None])[:, 0], share)
    return Labels(corners, tuple(labels.classes[k] for k in kept), tuple(labels.difficulty[k] for k in kept))


def _scaled(labels: Labels | None, factor: int) -> Labels | None:
    return None if labels is None else Labels(labels.corners / factor, labels.classes, labels.difficulty)


def _wants_context(labels: Labels | None, threshold: float) -> bool:
    if threshold == 0:
        return True
    return labels is not None and long_sides(labels.corners).max(initial=0) >= threshold


def _count(counts: Counter, factor: int, labels: Labels | None) -> None:
    counts[f"{level_folder(factor)} patches"] += 1
    counts[f"{level_folder(factor)} objects"] += 0 if labels is None else len(labels.classes)


# ------------------------------------------------------------------------------------------------------------- files


class _Files:
    """Writes the files of one image, in threads, and can take them back."""

    def __init__(self, root: Path, pool: ThreadPoolExecutor, at_once: int):
        self._root, self._pool, self._at_once = root, pool, at_once
        self._written: list[Path] = []
        self._pending: deque[Future[None]] = deque()

    def add_patch(
        self, factor: int, patch: Patch, pixels: np.ndarray, labels: Labels | None, pad: tuple[int, int, int]
    ) -> None:
        """Pixels may be fewer than the patch has; labels may be None, for images without any."""
        folder, shape = self._root / level_folder(factor), (patch.size, patch.size)
        self._submit(folder / "images" / f"{patch.name}.png", lambda: encode_padded(pixels, shape, pad))
        if labels is not None:
            self._submit(folder / "annfiles" / f"{patch.name}.txt", lambda: format_labels(labels).encode())

    def add_context(
        self, patch: Patch, context: Context, reduced: np.ndarray, labels: Labels | None, pad: tuple[int, int, int]
    ) -> None:
        """A crop of a reduced image, beyond which it may reach."""
        left, top = max(context.left, 0), max(context.top, 0)
        pixels = reduced[top : context.top + context.height, left : context.left + context.width]
        shape, start = (context.height, context.width), (top - context.top, left - context.left)
        stem = self._root / "native" / "contexts" / context_name(patch.name, context.factor)
        self._submit(stem.with_name(f"{stem.name}.png"), lambda: encode_padded(pixels, shape, pad, start))
        if labels is not None:
            self._submit(stem.with_name(f"{stem.name}.txt"), lambda: format_labels(labels).encode())

    def add_places(self, patch: Patch, contexts: Sequence[Context]) -> None:
        """Where the crops of a patch lie."""
        text = json.dumps([asdict(context) for context in contexts])
        self._submit(self._root / "native" / "contexts" / f"{patch.name}.json", lambda: text.encode())

    def wait(self) -> None:
        """Until all is written."""
        while self._pending:
            self._pending.popleft().result()

    def drop(self) -> None:
        """Remove what was written."""
        for future in self._pending:
            future.cancel()
        for future in self._pending:
            if not future.cancelled():
                future.exception()
        for path in self._written:
            path.unlink(missing_ok=True)

    def _submit(self, path: Path, content: Callable[[], bytes]) -> None:
        self._written.append(path)
        self._pending.append(self._pool.submit(_write, path, content))
        if len(self._pending) > self._at_once:
            self._pending.popleft().result()


def _write(path: Path, content: Callable[[], bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content())


def context_name(patch: str, factor: int) -> str:
    """The name of a crop's files without suffix."""
    return f"{patch}__{level_folder(factor)}"
