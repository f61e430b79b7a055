"""Measuring a model on any split of its scene, during a run or after it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader

from perception.studio.progress import progress_bar

if TYPE_CHECKING:
    from nerfstudio.pipelines.base_pipeline import VanillaPipeline


@torch.no_grad()
def measure_split(pipeline: VanillaPipeline, split: str) -> dict[str, float]:
    """Mean image metrics of all views of a split, as `ns-eval` takes them.

    Args:
        pipeline: with a :class:`~perception.studio.datamanager.RayDataManager`.
        split: ``"train"``, ``"val"`` or ``"test"``.
    """
    views = FixedIndicesEvalDataloader(pipeline.datamanager.split_dataset(split), device=pipeline.device)
    was_training, values = pipeline.training, defaultdict(list)
    pipeline.eval()
    with progress_bar(f"Rendering the {split} views", len(views)) as advance:
        for camera, batch in views:
            outputs = pipeline.model.get_outputs_for_camera(camera)
            metrics, _ = pipeline.model.get_image_metrics_and_images(outputs, batch)
            for name, value in metrics.items():
                values[name].append(value)
            advance()
    pipeline.train(was_training)
    return {name: mean(found) for name, found in values.items()}


def mean(values: Sequence[float]) -> float:
    """Mean of a metric over the images that have it; not a number where none has."""
    found = [value for value in values if not math.isnan(value)]
    return sum(found) / len(found) if found else math.nan
