"""Success and Precision of single-object tracking in point clouds (one-pass evaluation, Kristan et al., TPAMI 2016)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from torch import Tensor

from perception.geometry import boxes3d

_THRESHOLDS = 21
_FURTHEST = 2.0  # metres


def success(overlaps: np.ndarray) -> float:
    """Area, in percent, under the share of frames whose overlap is at least a threshold from 0 to 1, at 21 of them.

    Args:
        overlaps: (F,) 3D IoU of each frame. Of no frame at all the result is 0.

    Example:
        >>> success(np.array([0.5, 0.5]))
        52.5
    """
    return 100 * _area(_rounded(overlaps) >= _thresholds(1.0))


def precision(distances: np.ndarray) -> float:
    """Area, in percent, under the share of frames whose distance is at most a threshold from 0 to 2 m, at 21 of them.

    Args:
        distances: (F,) metres between the centres. Of no frame at all the result is 0.

    Example:
        >>> precision(np.array([2.0]))
        2.5
    """
    return 100 * _area(_rounded(distances) <= _thresholds(_FURTHEST))


def _rounded(values: np.ndarray) -> np.ndarray:
    """In single precision, as the published scores: the overlap of a box with itself is 1 and not a hair less."""
    return np.asarray(values, np.float64).astype(np.float32)


def _thresholds(last: float) -> np.ndarray:
    return np.linspace(0, last, _THRESHOLDS, dtype=np.float32)[:, None]


def _area(passed: np.ndarray) -> float:
    if passed.shape[1] == 0:
        return 0.0
    return float(np.trapezoid(passed.mean(1)) / (_THRESHOLDS - 1))


def compare(predicted: Tensor, truth: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Overlaps and distances (F,) of boxes (F, 7) of the same frames."""
    overlaps = boxes3d.paired_iou_3d(predicted.double(), truth.double())
    distances = (predicted[:, :3] - truth[:, :3]).norm(dim=1)
    return overlaps.numpy(), distances.numpy()


@METRICS.register_module()
class SuccessPrecision(BaseMetric):
    """Success and Precision over all frames of all tracklets, the first one, which is given, included; in percent.

    Predictions are dictionaries with ``category``, ``predicted`` and ``truth`` (F, 7) of a tracklet.

    Args:
        per_category: also of each category. The mean over categories is over frames: the pooled numbers are the mean.
        collect_device, prefix: as in MMEngine.
    """

    default_prefix = "tracking"

    def __init__(self, per_category: bool = True, collect_device: str = "cpu", prefix: str | None = None):
        super().__init__(collect_device, prefix)
        self.per_category = per_category

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Compares the boxes of some tracklets."""
        for sample in data_samples:
            overlaps, distances = compare(sample["predicted"].cpu(), sample["truth"].cpu())
            self.results.append((sample["category"], overlaps, distances))

    def compute_metrics(self, results: list[tuple[str, np.ndarray, np.ndarray]]) -> dict[str, float]:
        """``success`` and ``precision``, and of each category with its name in front."""
        groups = defaultdict(list)
        for category, overlaps, distances in results:
            groups[""].append((overlaps, distances))
            if self.per_category:
                groups[f"{category}/"].append((overlaps, distances))
        numbers = {}
        for name, pairs in sorted(groups.items()):
            overlaps, distances = (np.concatenate(column) for column in zip(*pairs, strict=True))
            numbers[f"{name}success"], numbers[f"{name}precision"] = success(overlaps), precision(distances)
        return numbers
