"""From detections in patches to those of whole images, and to the files that DOTA's server wants."""

from __future__ import annotations

import io
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from perception.datasets.dota import Patch, read_lines
from perception.engine.atomic import replacing
from perception.evaluation.rotated_ap import Found
from perception.geometry.rotated_boxes import box_corners
from perception.geometry.suppression import suppress, suppress_rotated
from perception.ops.box_iou_quadri import box_iou_quadri


def merge_patches(patches: Iterable[tuple[str, Found]], iou_threshold: float) -> dict[str, Found]:
    """Detections of whole images, by the images' names, from those of their patches.

    Args:
        patches: name (see :class:`perception.datasets.dota.Patch`) and detections, in pixels of the patch, of each.
        iou_threshold: of the suppression within each class.

    Raises:
        ValueError: a name is not that of a patch.
    """
    parts = defaultdict(list)
    for name, found in patches:
        patch = Patch.from_name(name)
        # Far from the origin float32 would be coarser than the files' two decimals.
        boxes = found.boxes.astype(np.float64)
        boxes[:, :2] += patch.x, patch.y
        parts[patch.image].append(Found(boxes, found.scores, found.labels))
    return {image: suppressed(_joined(some), iou_threshold) for image, some in sorted(parts.items())}


def suppressed(found: Found, iou_threshold: float) -> Found:
    """The detections that stay after suppression within each class, by falling score."""
    boxes, scores, labels = map(torch.from_numpy, (found.boxes, found.scores, found.labels))
    kept = suppress_rotated(boxes, scores, labels, iou_threshold).numpy()
    return Found(found.boxes[kept], found.scores[kept], found.labels[kept])


def _joined(parts: Sequence[Found]) -> Found:
    return Found(*(np.concatenate([getattr(part, key) for part in parts]) for key in ("boxes", "scores", "labels")))


def write_task1(folder: str | Path, images: Mapping[str, Found], classes: Sequence[str]) -> Path:
    """Write `Task1_CLASS.txt` for every class, and a zip archive of them, named like the folder.

    A line is `image score x1 y1 x2 y2 x3 y3 x4 y4`. Scores keep float32's full precision: rounded ones would make ties,
    whose order the server does not define. A file that is there already is replaced.

    Returns:
        The archive's path.
    """
    lines = {name: [] for name in classes}
    for image, found in images.items():
        corners = box_corners(torch.from_numpy(found.boxes).double()).flatten(1).tolist()
        for label, score, quad in zip(found.labels, found.scores, corners, strict=True):
            lines[classes[label]].append(task1_line(image, score, quad))
    return _write(Path(folder), lines)


def merge_files(source: str | Path, out: str | Path, iou_threshold: float) -> tuple[int, int]:
    """Merge the `Task1_CLASS.txt` files of patches in `source` into files of whole images in `out`.

    Returns:
        The numbers of detections before and after suppression.

    Raises:
        ValueError: there are no such files, a line is something else, or a name is not that of a patch.
        OSError: a file cannot be read or written.
    """
    paths = sorted(Path(source).glob("Task1_*.txt"))
    if not paths:
        raise ValueError(f"{source} holds no Task1_CLASS.txt files")
    lines, before = {}, 0
    for path in paths:
        patches, scores, quads = _read(path)
        before += len(patches)
        names, images = np.unique(np.array([patch.image for patch in patches], str), return_inverse=True)
        quads += np.array([(patch.x, patch.y) * 4 for patch in patches], np.float64).reshape(-1, 8)
        kept = _suppressed_quads(quads, scores, images, iou_threshold)
        kept = kept[np.argsort(images[kept], kind="stable")]
        lines[path.stem.removeprefix("Task1_")] = [task1_line(names[images[k]], scores[k], quads[k]) for k in kept]
    _write(Path(out), lines)
    return before, sum(map(len, lines.values()))


def _suppressed_quads(quads: np.ndarray, scores: np.ndarray, images: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Indices of the quadrilaterals `[N, 8]` that stay after suppression within each image."""

    def conflict(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
        pairs = (torch.from_numpy(quads[chosen]) for chosen in (better, worse))
        return (box_iou_quadri(*pairs, aligned=True) > iou_threshold).numpy()

    bounds = np.hstack([quads.reshape(-1, 4, 2).min(1), quads.reshape(-1, 4, 2).max(1)])
    return suppress(bounds, np.argsort(-scores, kind="stable"), images, conflict)


def _read(path: Path) -> tuple[list[Patch], np.ndarray, np.ndarray]:
    """Patches, scores `[N]` and corners `[N, 8]` of the lines of a file."""
    patches, values = [], []
    for number, line in enumerate(read_lines(path), start=1):
        name, *rest = line.split() or [""]
        try:
            row = [float(item) for item in rest]
        except ValueError:
            row = []
        if len(row) != 9 or not np.isfinite(row).all():
            raise ValueError(f"{path}, line {number}: expected a name, a score and 8 coordinates, not {line!r}")
        try:
            patches.append(Patch.from_name(name))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        values.append(row)
    table = np.array(values, np.float64).reshape(-1, 9)
    return patches, table[:, 0].copy(), table[:, 1:].copy()


def _write(folder: Path, lines: Mapping[str, Sequence[str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, some in lines.items():
            text = "".join(some).encode()
            archive.writestr(task1_name(name), text)
            with replacing(folder / task1_name(name)) as file:
                file.write(text)
    target = folder / f"{folder.resolve().name}.zip"
    with replacing(target) as file:
        file.write(packed.getvalue())
    return target


def task1_name(class_name: str) -> str:
    """The name of a class's file."""
    return f"Task1_{class_name}.txt"


def task1_line(image: str, score: float, corners: Sequence[float]) -> str:
    """One detection: `corners` are x1, y1, ..., x4, y4 in pixels.

    Example:
        >>> task1_line("P0001", 0.5, [1, 1, 9, 1, 9, 5, 1, 5])
        'P0001 0.5000 1.00 1.00 9.00 1.00 9.00 5.00 1.00 5.00\\n'
    """
    coordinates = " ".join(f"{value:.2f}" for value in corners)
    return f"{image} {np.format_float_positional(np.float32(score), min_digits=4)} {coordinates}\n"
