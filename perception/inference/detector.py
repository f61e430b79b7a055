"""An MMEngine detector as a function from images in memory to detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import Resize
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, init_default_scope

from perception.engine.checkpoint import load_checkpoint_file, load_weights
from perception.engine.errors import UserError
from perception.inference.decoding import InputSize
from perception.inference.drawing import Colour, default_palette
from perception.inference.results import Detections


@dataclass(frozen=True)
class Prepared:
    """An image after the test pipeline.

    Images of the same `shape` may share a batch: padded to it, each gets exactly the padding that it would get alone,
    so that its results do not depend on its neighbours, whatever the model makes of padding.
    """

    data: dict[str, Any]
    shape: tuple[int, ...]


class Detector:
    """A model with its test pipeline.

    Args:
        cfg: a config with `model` and a test pipeline.
        checkpoint: the weights' file.
        device: where it runs.

    Raises:
        UserError: the config does not describe a detector on images.
        CheckpointError: the checkpoint cannot be read, or is of another model.
    """

    def __init__(self, cfg: Config, checkpoint: str | Path, device: torch.device) -> None:
        init_default_scope(cfg.get("default_scope", "mmdet"))
        self._pipeline, self._to_float = _in_memory_pipeline(cfg)
        self.input_size = _input_size(self._pipeline)
        loaded = load_checkpoint_file(checkpoint)
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        self.unused_weights = load_weights(model, loaded, checkpoint)
        self._model = model.to(device).eval()
        self._divisor = getattr(model.data_preprocessor, "pad_size_divisor", 1)
        self.classes, self.palette = classes_and_palette(loaded, cfg)

    def prepare(self, pixels: np.ndarray, name: str) -> Prepared:
        """Applies the test pipeline to uint8 (height, width, 3) RGB."""
        # Pipelines and data preprocessors of the OpenMMLab family take OpenCV's channel order.
        image = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        if self._to_float:
            image = image.astype(np.float32)
        size = image.shape[:2]
        data = self._pipeline({"img": image, "img_path": name, "img_id": 0, "img_shape": size, "ori_shape": size})
        if data is None:
            raise ValueError("the test pipeline rejects it")
        channels, height, width = data["inputs"].shape
        divisor = self._divisor
        return Prepared(data, (channels, -(-height // divisor) * divisor, -(-width // divisor) * divisor))

    def predict(self, batch: Sequence[Prepared], score_thr: float) -> list[Detections]:
        """Runs the model on images of one shape; boxes come in pixels of what `prepare` was given."""
        with torch.inference_mode():
            samples = self._model.test_step(pseudo_collate([prepared.data for prepared in batch]))
            return [_detections(sample, score_thr, len(self.classes)) for sample in samples]


def identity(cfg: Config) -> dict[str, Any]:
    """The parts of a config on which a detector's results depend."""
    dataset = _test_dataset(cfg)
    return {
        "model": cfg.model,
        "pipeline": _test_pipeline(cfg),
        "dataset": {key: dataset.get(key) for key in ("type", "metainfo")},
        "default_scope": cfg.get("default_scope"),
    }


def _detections(sample: Any, score_thr: float, num_classes: int) -> Detections:
    """A data sample's instances with at least `score_thr`, best first."""
    if "pred_instances" not in sample or "bboxes" not in sample.pred_instances:
        raise UserError("the model yields no boxes; folder inference runs detectors and instance segmenters")
    instances = sample.pred_instances
    boxes = getattr(instances.bboxes, "tensor", instances.bboxes)
    if boxes.shape[-1] != 4:
        raise UserError(f"the model yields boxes of {boxes.shape[-1]} numbers; only upright ones (xyxy) are drawn")
    scores = instances.scores.float()
    if not (torch.isfinite(boxes).all() and torch.isfinite(scores).all()):
        raise ValueError("its boxes or scores are not finite numbers")
    if len(instances.labels) and int(instances.labels.max()) >= num_classes:
        raise UserError(
            f"the model yields label {int(instances.labels.max())}, but only {num_classes} classes are named "
            "in the checkpoint (meta.dataset_meta) or the config"
        )
    order = torch.argsort(scores, descending=True, stable=True)
    order = order[scores[order] >= score_thr]
    return Detections(
        boxes[order].float().cpu().numpy(),
        scores[order].cpu().numpy(),
        instances.labels[order].cpu().numpy(),
        instances.masks[order].cpu().numpy().astype(bool) if "masks" in instances else None,
    )


def _in_memory_pipeline(cfg: Config) -> tuple[Compose, bool]:
    """The config's test pipeline without what reads files, and whether it wants floating-point pixels."""
    steps, to_float = [], False
    for step in _test_pipeline(cfg):
        kind = step["type"] if isinstance(step["type"], str) else step["type"].__name__
        kind = kind.rpartition(".")[2]
        if kind in ("LoadImageFromFile", "InferencerLoader", "LoadImageFromNDArray"):
            if not step.get("color_type", "color").startswith("color"):
                raise UserError(
                    f"the config's test pipeline loads images with color_type={step['color_type']!r}; "
                    "folder inference gives colour images"
                )
            to_float = step.get("to_float32", False)
        elif kind.startswith("LoadMulti") or kind == "LoadProposals":
            raise UserError(f"the config's test pipeline has a {kind}, which a folder of images cannot serve")
        elif not (kind.startswith("Load") and kind.endswith("Annotations")):
            steps.append(step)
    return Compose(steps), to_float


def _test_dataset(cfg: Config) -> Mapping[str, Any]:
    """The config of the innermost test data set, or an empty one."""
    dataset = cfg.get("test_dataloader", {}).get("dataset", {})
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    return dataset


def _test_pipeline(cfg: Config) -> Sequence[Mapping[str, Any]]:
    pipeline = _test_dataset(cfg).get("pipeline") or cfg.get("test_pipeline")
    if not pipeline:
        raise UserError(
            f"config {cfg.filename} has no test pipeline (test_dataloader.dataset.pipeline or test_pipeline)"
        )
    return pipeline


def _input_size(pipeline: Compose) -> InputSize | None:
    """To what the pipeline resizes; None when images go in as they are or by a factor."""
    for step in pipeline.transforms:
        if isinstance(step, Resize):
            return None if step.scale is None else InputSize(*step.scale, step.keep_ratio)
    return None


def classes_and_palette(checkpoint: Mapping[str, Any], cfg: Config) -> tuple[tuple[str, ...], list[Colour]]:
    """Names and colours by label: the checkpoint's own, else the config's.

    Raises:
        UserError: neither names classes.
    """
    init_default_scope(cfg.get("default_scope", "mmdet"))
    meta = checkpoint.get("meta", {})
    dataset = _test_dataset(cfg)
    configured: dict[str, Any] = {}
    if "type" in dataset:
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(dataset["type"]) if isinstance(dataset["type"], str) else dataset["type"]
        configured.update(getattr(kind, "METAINFO", {}))
    configured.update(dataset.get("metainfo") or {})
    # Files from before MMEngine keep the classes in capitals, beside the other entries.
    trained = meta.get("dataset_meta") or {key: meta[key] for key in ("CLASSES", "PALETTE") if key in meta}
    known = {key.lower(): value for key, value in {**configured, **trained}.items() if value is not None}
    classes = known.get("classes")
    if not classes:
        raise UserError("neither the checkpoint (meta.dataset_meta) nor the config's test data set names classes")
    classes = (classes,) if isinstance(classes, str) else tuple(classes)
    palette = known.get("palette")
    if not isinstance(palette, (list, tuple)) or len(palette) < len(classes):
        return classes, default_palette(len(classes))
    return classes, [tuple(int(value) for value in colour) for colour in palette]
