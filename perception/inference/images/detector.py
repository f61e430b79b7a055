"""An MMEngine detector or segmenter as a function from images in memory to what it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import Resize
from mmdet.structures import INSTANCE_OFFSET
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, init_default_scope

from perception.datasets.palette import Colour, default_palette
from perception.engine.checkpoint import load_checkpoint_file, load_weights
from perception.engine.errors import UserError
from perception.geometry.pyramid import Context
from perception.geometry.rotated_boxes import as_le90
from perception.inference.images.decoding import InputSize
from perception.inference.images.results import UNLABELLED, Detections, Found, LabelMap, Segments, crop_masks

# Logits of the image's size that are held at the same time: 128 MiB.
_LOGITS_AT_ONCE = 2**25


@dataclass(frozen=True)
class Prepared:
    """An image after the test pipeline.

    Images of the same `shape` may share a batch: padded to it, each gets exactly the padding that it would get alone,
    so that its results do not depend on its neighbours, whatever the model makes of padding.
    """

    data: dict[str, Any]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Around:
    """What is around a window, on reduced images.

    Attributes:
        images: uint8 (3, height, width) BGR, one for each of the contexts.
        contexts: what they are.
    """

    images: Sequence[torch.Tensor]
    contexts: Sequence[Context]


class Detector:
    """A model with its test pipeline.

    Args:
        cfg: a config with `model` and a test pipeline.
        checkpoint: the weights' file.
        device: where it runs.

    Raises:
        UserError: the config does not describe a detector or segmenter of images.
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
        # mmseg's segmenters, and those alone, have logits of every pixel to resize.
        self._segments = hasattr(model, "encode_decode")
        self.classes, self.palette = classes_and_palette(loaded, cfg)
        if self._segments and len(self.classes) > UNLABELLED:
            raise UserError(f"label maps have room for {UNLABELLED} classes, this model has {len(self.classes)}")

    def prepare(self, pixels: np.ndarray, name: str) -> Prepared:
        """Applies the test pipeline to uint8 (height, width, 3) RGB."""
        # Pipelines and data preprocessors of the OpenMMLab family take OpenCV's channel order.
        image = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        if self._to_float:
            image = image.astype(np.float32)
        size = image.shape[:2]
        # What a pipeline that does not resize leaves as it is.
        told = {"img_path": name, "img_id": 0, "img_shape": size, "ori_shape": size, "scale_factor": (1.0, 1.0)}
        data = self._pipeline({"img": image, **told})
        if data is None:
            raise ValueError("the test pipeline rejects it")
        channels, height, width = data["inputs"].shape
        if self._segments:
            # Logits at the size of the input: `_label_map` goes on to the image's with less memory.
            data["data_samples"].set_metainfo({"ori_shape": (height, width), "image_shape": size})
        divisor = self._divisor
        return Prepared(data, (channels, -(-height // divisor) * divisor, -(-width // divisor) * divisor))

    @property
    def fuses(self) -> bool:
        """Whether the model takes up what is around a window."""
        return bool(getattr(self._model, "fuses", False))

    def prepare_window(self, pixels: np.ndarray, name: str, factor: int, around: Around | None) -> Prepared:
        """The same for a window of an image that was reduced by a factor, or of the native one by 1.

        The model finds `factor` among the metainfo of the data sample and, where there is some, what is around the
        window as `context` beside `inputs`.
        """
        prepared = self.prepare(pixels, name)
        prepared.data["data_samples"].set_metainfo({"factor": factor})
        if around is None:
            return prepared
        return Prepared({**prepared.data, "context": around}, prepared.shape)

    def predict(self, batch: Sequence[Prepared], score_thr: float) -> list[Found]:
        """Runs the model on images of one shape; boxes and label maps are in pixels of what `prepare` was given."""
        with torch.inference_mode():
            samples = self._model.test_step(pseudo_collate([prepared.data for prepared in batch]))
            if self._segments:
                return [_label_map(sample, self._model, len(self.classes)) for sample in samples]
            if "pred_panoptic_seg" in samples[0]:
                return [_segments(sample, len(self.classes)) for sample in samples]
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
        raise UserError("the model yields neither boxes nor label maps nor panoptic segments")
    instances = sample.pred_instances
    boxes = getattr(instances.bboxes, "tensor", instances.bboxes).float()
    if boxes.shape[-1] == 8:
        # Here, because only few models need it and the import takes seconds.
        from mmrotate.structures.bbox.box_converters import qbox2rbox

        boxes = qbox2rbox(boxes)
    if boxes.shape[-1] == 5:
        boxes = as_le90(boxes)
    elif boxes.shape[-1] != 4:
        raise UserError(f"the model yields boxes of {boxes.shape[-1]} numbers; upright and rotated ones are understood")
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
    boxes, masks = boxes[order].cpu().numpy(), None
    if "masks" in instances:
        masks = crop_masks(instances.masks[order].cpu().numpy().astype(bool))
        if not boxes.any():  # heads without boxes (SOLO) fill in zeros
            boxes = np.asarray([mask.bounds() for mask in masks], np.float32).reshape(-1, 4)
    return Detections(boxes, scores[order].cpu().numpy(), instances.labels[order].cpu().numpy(), masks)


def _label_map(sample: Any, model: torch.nn.Module, num_classes: int) -> LabelMap:
    """The class of each pixel of the image, as mmseg computes it, but a few classes at a time.

    All logits of a photograph with 150 classes would take gigabytes.
    """
    logits, size = sample.seg_logits.data, sample.metainfo["image_shape"]
    if len(logits) > max(num_classes, 1):
        raise UserError(
            f"the model tells {len(logits)} classes apart, but only {num_classes} are named "
            "in the checkpoint (meta.dataset_meta) or the config"
        )
    if not torch.isfinite(logits).all():
        raise ValueError("its logits are not finite numbers")
    if len(logits) == 1:
        # One class against the background: mmseg gives its probability, at the size of the input.
        logit = _resized(logits.logit(eps=1e-7), size, model.align_corners)[0]
        return LabelMap((logit.sigmoid() > model.decode_head.threshold).to(torch.uint8).cpu().numpy())
    at_once = max(1, _LOGITS_AT_ONCE // (size[0] * size[1]))
    best = labels = None
    for start in range(0, len(logits), at_once):
        value, label = _resized(logits[start : start + at_once], size, model.align_corners).max(0)
        label = (label + start).to(torch.uint8)
        if best is None:
            best, labels = value, label
        else:
            better = value > best
            best, labels = torch.where(better, value, best), torch.where(better, label, labels)
    return LabelMap(labels.cpu().numpy())


def _segments(sample: Any, num_classes: int) -> Segments:
    """A data sample's panoptic segments, with mmdet's codes (label + 1000 instance) replaced by 1, 2, ..."""
    values = sample.pred_panoptic_seg.sem_seg[0].cpu().numpy()
    codes, ids = np.unique(values, return_inverse=True)
    labels = codes % INSTANCE_OFFSET
    if labels.max() > num_classes:
        raise UserError(
            f"the model yields label {labels.max()}, but only {num_classes} classes are named "
            "in the checkpoint (meta.dataset_meta) or the config"
        )
    # What comes after the last class is no segment.
    real = labels < num_classes
    numbers = np.where(real, np.cumsum(real), 0)
    return Segments(numbers[ids].reshape(values.shape).astype(np.int32), labels[real].astype(np.int64))


def _resized(maps: torch.Tensor, size: tuple[int, int], align_corners: bool) -> torch.Tensor:
    """Maps (C, h, w) at another size (height, width)."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=align_corners)[0]


def _in_memory_pipeline(cfg: Config) -> tuple[Compose, bool]:
    """The config's test pipeline without what reads files, and whether it wants floating-point pixels."""
    steps, to_float = [], False
    for step in _test_pipeline(cfg):
        kind = step["type"] if isinstance(step["type"], str) else step["type"].__name__
        kind = kind.rpartition(".")[2]
        if kind in ("LoadImage", "LoadImageFromFile", "InferencerLoader", "LoadImageFromNDArray"):
            if not step.get("color_type", "color").startswith("color"):
                raise UserError(
                    f"the config's test pipeline loads images with color_type={step['color_type']!r}; "
                    "folder inference gives colour images"
                )
            to_float = step.get("to_float32", False)
        elif kind.startswith("LoadMulti") or kind in ("LoadProposals", "LoadRigImages"):
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
    return classes, [tuple(int(value) for value in colour) for colour in palette[: len(classes)]]
