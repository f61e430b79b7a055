"""Average precision of rotated boxes by the length of the objects, as GLH-Bridge is evaluated.

In a bin of lengths, objects of other lengths count neither way, nor do detections that find them; a detection that
finds nothing is wrong only if its own length is in the bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from perception.evaluation.rotated_ap import (
    ClassResult,
    Found,
    Pooled,
    Truth,
    class_result,
    mean_average_precision,
    pooled,
)
from perception.ops.min_area_polygons import min_area_polygons

LENGTH_BINS = ((0.0, 50.0), (50.0, 200.0), (200.0, 800.0), (800.0, 20000.0))
"""Of GLH-Bridge: from, and up to but without, in pixels of the long side."""
_ROUNDING = 1e-9
THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())


@dataclass(frozen=True)
class BinResult:
    """Objects of one bin of lengths.

    Attributes:
        low, high: of the bin.
        num_truths: objects in it.
        average_precision: by threshold, the mean over the classes that have objects there; 0 if none has.
    """

    low: float
    high: float
    num_truths: int
    average_precision: dict[float, float]

    @property
    def mean(self) -> float:
        """Over the thresholds."""
        return float(np.mean(list(self.average_precision.values())))


def evaluate_by_length(
    found: Sequence[Found],
    truths: Sequence[Truth],
    num_classes: int,
    bins: Sequence[tuple[float, float]] = LENGTH_BINS,
    thresholds: Sequence[float] = THRESHOLDS,
    mode: str = "11points",
    inclusive: bool = True,
) -> list[BinResult]:
    """A result for each bin over the images of `found` and `truths`.

    Objects are the smallest rectangles around what is annotated, as the released evaluation reads them.

    Args:
        bins: (from, up to but without) of the long side.
        thresholds: overlaps that a right detection has.
        mode: "11points" (VOC 2007) or "area" (VOC 2012).
        inclusive: whether an overlap of exactly a threshold is enough, as in mmrotate before version 1.

    Raises:
        ValueError: the numbers of images differ.
    """
    truths = [replace(truth, corners=smallest_rectangles(truth.corners)) for truth in truths]
    # Of turned boxes, an overlap of a half is one of 0.4999999999999 in floating point.
    below = _ROUNDING if inclusive else 0
    thresholds_by_name = {threshold: threshold - below for threshold in thresholds}
    everything = pooled(found, truths)
    lengths = np.concatenate([np.zeros(0), *(one.boxes[:, 2:4].max(axis=1, initial=0) for one in found)])
    truth_lengths = np.concatenate([np.zeros(0), *(long_sides(truth.corners) for truth in truths)])
    results = []
    for low, high in bins:
        inside = (low <= lengths) & (lengths < high)
        truth_inside = (low <= truth_lengths) & (truth_lengths < high)
        binned = replace(everything, difficult=everything.difficult | ~truth_inside)
        by_threshold = {
            threshold: mean_average_precision(_results(binned, inside, num_classes, exceeded, mode))
            for threshold, exceeded in thresholds_by_name.items()
        }
        results.append(BinResult(low, high, int((~binned.difficult).sum()), by_threshold))
    return results


def long_sides(corners: np.ndarray) -> np.ndarray:
    """Long sides `[M]` of the smallest rectangles around quadrilaterals `[M, 4, 2]`.

    Example:
        >>> long_sides(np.array([[[0.0, 0], [30, 40], [26, 43], [-4, 3]]]))
        array([50.])
    """
    return sides(corners)[:, 0]


def sides(corners: np.ndarray) -> np.ndarray:
    """Long and short sides `[M, 2]` of the smallest rectangles around quadrilaterals `[M, 4, 2]`.

    To a millionth of a pixel: a side of exactly 50 at any angle is not below 50.
    """
    rectangles = smallest_rectangles(corners)
    both = np.sort(np.linalg.norm(rectangles[:, 1:3] - rectangles[:, :2], axis=-1), axis=1)[:, ::-1]
    return both.round(6)


def smallest_rectangles(corners: np.ndarray) -> np.ndarray:
    """Corners `[M, 4, 2]` of the smallest rectangles around quadrilaterals `[M, 4, 2]`."""
    return min_area_polygons(torch.from_numpy(corners).double().flatten(1)).unflatten(1, (4, 2)).numpy()


def _results(
    everything: Pooled, inside: np.ndarray, num_classes: int, threshold: float, mode: str
) -> list[ClassResult]:
    kept = inside | (everything.overlap > threshold)
    counted = replace(
        everything,
        **{name: getattr(everything, name)[kept] for name in ("scores", "labels", "overlap", "match")},
    )
    return [class_result(counted, label, threshold, mode) for label in range(num_classes)]
