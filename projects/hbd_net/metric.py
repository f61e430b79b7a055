"""Detections of patches on all levels become those of whole images, and are measured by length, for MMEngine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.logging import MMLogger
from mmrotate.registry import METRICS

from perception.datasets.dota import Patch, class_numbers, read_labels
from perception.engine.errors import UserError
from perception.evaluation.dota import DOTATask1Metric
from perception.evaluation.length_ap import LENGTH_BINS, THRESHOLDS, BinResult, evaluate_by_length, sides
from perception.evaluation.rotated_ap import Found, Truth
from perception.evaluation.task1 import write_task1
from perception.geometry.level_merging import ACROSS_LEVELS, WITHIN_LEVEL, merge_levels, merge_windows, to_native

EVERYTHING = (0.0, float("inf"))


@METRICS.register_module()
class PyramidLengthMetric(DOTATask1Metric):
    """Average precision of bridges by their length, on whole images (GLH-Bridge).

    Samples are patches, named as :mod:`perception.datasets.dota_split` names them, of levels that ``factor`` in their
    metainfo tells (absent: native ones). Windows are merged within each level and class, then the levels, as published;
    that parts give way to wholes first is a step of folder runs alone, which ``--keep-parts`` leaves out.

    Args:
        label_folder: labels of the whole images (``labelTxt``).
        bins: lengths (from, up to but without) in pixels of the long side.
        within_level, across_levels: overlaps above which the better of two detections stays.
        inclusive: detections that overlap by exactly that give way, too, as in the released merging.
        diff_thr: objects of a higher difficulty are left out, as in the released data set: what finds them is wrong.
        min_side: objects with a shorter side are left out, as in the data set.
        format_only, outfile_prefix, eval_mode, collect_device, prefix: as in :class:`DOTATask1Metric`.

    Raises:
        UserError: there is nothing to evaluate with, or nowhere to write to.
    """

    def __init__(
        self,
        label_folder: str | None = None,
        bins: Sequence[tuple[float, float]] = LENGTH_BINS,
        within_level: float = WITHIN_LEVEL,
        across_levels: float = ACROSS_LEVELS,
        inclusive: bool = False,
        diff_thr: int = 100,
        min_side: float = 2,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        eval_mode: str = "11points",
        collect_device: str = "cpu",
        prefix: str | None = None,
    ):
        super().__init__(
            iou_thrs=list(THRESHOLDS),
            merge_patches=True,
            label_folder=label_folder,
            format_only=format_only,
            outfile_prefix=outfile_prefix,
            eval_mode=eval_mode,
            collect_device=collect_device,
            prefix=prefix,
        )
        self.bins = [tuple(one) for one in bins]
        self.within_level, self.across_levels, self.inclusive = within_level, across_levels, inclusive
        self.diff_thr, self.min_side = diff_thr, min_side

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Note the detections of a batch of patches.

        Raises:
            UserError: a sample is no patch, or the labels of its image are missing.
        """
        super().process(data_batch, data_samples)
        factors = [int(sample.get("factor", 1)) for sample in data_samples]
        added = self.results[-len(factors) :]
        self.results[-len(factors) :] = [(name, found, factor) for (name, found, _), factor in zip(added, factors)]

    def compute_metrics(self, results: list[tuple[str, Found, int]]) -> dict[str, float]:
        """Merge, write and evaluate the results of all images.

        Returns:
            ``AP50``, ``AP75`` and ``mAP`` of all objects, and the same of each bin (``AP50_200_800``); of the last one
            without its end. Nothing with ``format_only``.

        Raises:
            UserError: there are no results, or the labels of an image cannot be read.
        """
        if not results:
            raise UserError("the evaluator got no results: its data set has no images")
        classes = self.dataset_meta["classes"]
        merged = merge_pyramids(results, len(classes), self.within_level, self.across_levels, self.inclusive)
        if self.outfile_prefix is not None:
            path = write_task1(self.outfile_prefix, merged, classes)
            MMLogger.get_current_instance().info(f"wrote {path}")
        if self.format_only:
            return {}
        truths = [self._read_truth(image) for image in merged]
        bins = [EVERYTHING, *self.bins]
        evaluated = evaluate_by_length(
            list(merged.values()), truths, len(classes), bins, THRESHOLDS, mode=self.eval_mode
        )
        MMLogger.get_current_instance().info(f"\n{_table(evaluated)}")
        names = ["", *(f"_{low:g}_{high:g}" for low, high in self.bins)]
        return {
            f"{what}{name}": value
            for name, result in zip(names, evaluated)
            for what, value in (
                ("AP50", result.average_precision[0.5]),
                ("AP75", result.average_precision[0.75]),
                ("mAP", result.mean),
            )
        }

    def _read_truth(self, image: str) -> Truth:
        path = self._label_file(image)
        try:
            labels = read_labels(path)
            numbers = class_numbers(labels, self.dataset_meta["classes"], path)
        except ValueError as error:
            raise UserError(str(error)) from error
        easy = np.array(labels.difficulty, np.int64).reshape(-1) <= self.diff_thr
        kept = easy & (sides(labels.corners)[:, 1] >= self.min_side)
        return Truth(labels.corners[kept], numbers[kept], np.zeros(kept.sum(), bool))


def merge_pyramids(
    patches: Sequence[tuple[str, Found, int]],
    num_classes: int,
    within_level: float = WITHIN_LEVEL,
    across_levels: float = ACROSS_LEVELS,
    inclusive: bool = False,
) -> dict[str, Found]:
    """Detections of whole images, by their names, from those of patches.

    Args:
        patches: the name of each, its detections in pixels of the patch, and the factor of its level.
        within_level, across_levels: overlaps above which the better of two detections of a class stays alone.
        inclusive: an overlap of exactly that is enough.
    """
    levels: dict[str, dict[int, list[tuple[Patch, Found]]]] = defaultdict(lambda: defaultdict(list))
    for name, found, factor in patches:
        patch = Patch.from_name(name)
        levels[patch.image][factor].append((patch, found))
    merged = {}
    for image, by_factor in sorted(levels.items()):
        parts = []
        for label in range(num_classes):
            merged_levels = [
                merge_windows([_native(patch, found, label, factor) for patch, found in some], within_level, inclusive)
                for factor, some in by_factor.items()
            ]
            boxes = merge_levels(merged_levels, across_levels, inclusive).numpy()
            parts.append(Found(boxes[:, :5], boxes[:, 5], np.full(len(boxes), label)))
        merged[image] = Found(
            *(np.concatenate([getattr(part, key) for part in parts]) for key in ("boxes", "scores", "labels"))
        )
    return merged


def _native(patch: Patch, found: Found, label: int, factor: int) -> torch.Tensor:
    mine = found.labels == label
    # Far from the origin float32 would be coarser than the files' two decimals.
    rows = np.column_stack([found.boxes[mine], found.scores[mine]]).astype(np.float64)
    return to_native(torch.from_numpy(rows), (patch.x, patch.y), factor)


def _table(results: Sequence[BinResult]) -> str:
    lines = [f"{'length':>14} {'objects':>8} {'AP50':>6} {'AP75':>6} {'mAP':>6}"]
    for result in results:
        name = "all" if (result.low, result.high) == EVERYTHING else f"{result.low:g} to {result.high:g}"
        values = (result.average_precision[0.5], result.average_precision[0.75], result.mean)
        lines.append(f"{name:>14} {result.num_truths:>8} " + " ".join(f"{value:6.3f}" for value in values))
    return "\n".join(lines)
