"""Predictions of a test run in one pickle file."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.evaluation import DumpDetResults
from mmengine.registry import METRICS


@METRICS.register_module()
class DumpPredictions(DumpDetResults):
    """mmdet's ``DumpDetResults``, which also keeps label maps small.

    Of a semantic segmentation, the labels are kept (as ``uint8`` where that suffices), but neither the ground truth nor
    the logits, which take a hundred times as much.
    """

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Collects the predictions of a batch."""
        for sample in data_samples:
            sample = {key: value for key, value in sample.items() if key not in ("gt_sem_seg", "seg_logits")}
            if "pred_sem_seg" in sample:
                labels = {key: _compact(value) for key, value in sample["pred_sem_seg"].items()}
                sample["pred_sem_seg"] = labels
            super().process(data_batch, [sample])


def _compact(labels: torch.Tensor) -> torch.Tensor:
    small = labels.numel() == 0 or (labels.min() >= 0 and labels.max() < 256)
    return labels.to(torch.uint8) if small else labels
