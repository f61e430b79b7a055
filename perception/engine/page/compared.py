"""The page of a test run: predictions beside what is true, the worst images first."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import barrier, get_rank, get_world_size, is_main_process
from pycocotools import mask as coco_mask
from torch import Tensor

from perception.datasets.palette import default_palette
from perception.engine.page import page, pictures
from perception.geometry.rotated_boxes import box_corners, upright_bounds
from perception.ops.bbox_overlaps import bbox_overlaps
from perception.ops.box_iou_rotated import box_iou_rotated

NO_LABEL = 255
"""In label maps: pixels that are true to no class, and do not count."""

_IOU = 0.5
_F1 = "F1 of boxes (one class, overlap of half or more)"
_MEAN_IOU = "intersection over union, the mean of an image's classes"
_DIGITS = 3


@dataclass(frozen=True)
class Boxes:
    """Objects of one image.

    Attributes:
        boxes: (N, 4) xyxy, or (N, 5) rotated, in pixels.
        labels: (N,).
        scores: (N,), or None for what is true.
        masks: (N, height, width) bool, or None.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor | None = None
    masks: np.ndarray | None = None


class ComparedPage:
    """Collects the images of a test run, in each of its processes, and writes their page.

    Args:
        folder: of the pictures.
        classes: names.
        palette: colours, as far as there are some.
    """

    def __init__(self, folder: Path, classes: Sequence[str], palette: Sequence | None = None) -> None:
        self._folder, self._classes = folder, tuple(classes)
        self._measure: str | None = None
        self._palette = [tuple(colour) for colour in palette] if palette else default_palette(len(self._classes))
        self._lines = self._file(get_rank())
        self._lines.parent.mkdir(parents=True, exist_ok=True)
        self._open = self._lines.open("w")

    def add_boxes(self, picture: Path, pixels: np.ndarray, truth: Boxes | None, found: Boxes) -> None:
        """Takes an image with objects.

        Args:
            picture: that was drawn, below the folder.
            pixels: uint8 (height, width, 3) RGB.
            truth: what is true; None where nobody says.
            found: what was predicted, and is shown.
        """
        height, width = pixels.shape[:2]
        record: dict[str, Any] = {"width": width, "height": height, "detections": self._entries(found)}
        measure = None
        if truth is not None:
            record["truth"], self._measure, measure = self._entries(truth), _F1, f1(truth, found)
        self._add(picture, pixels, record, None, measure)

    def add_maps(self, picture: Path, pixels: np.ndarray, truth: np.ndarray | None, found: np.ndarray) -> None:
        """Takes an image with label maps (height, width), `NO_LABEL` where there is none; or no true one."""
        height, width = pixels.shape[:2]
        counts = np.bincount(found.ravel().astype(np.int64), minlength=NO_LABEL + 1)[: len(self._classes)]
        record: dict[str, Any] = {"width": width, "height": height, "detections": []}
        record["shares"] = {
            name: round(int(count) / found.size, 5) for name, count in zip(self._classes, counts) if count
        }
        scene, measure = {"index": pictures.index_png(found, NO_LABEL + 1)}, None
        if truth is not None:
            scene["truth"] = pictures.index_png(truth, NO_LABEL + 1)
            record["truth"], self._measure, measure = [], _MEAN_IOU, mean_iou(truth, found)
        self._add(picture, pixels, record, scene, measure)

    def finish(self) -> None:
        """Writes the page, in the first process, once all have added their images."""
        self._open.close()
        barrier()
        if is_main_process():
            self._write([self._file(rank) for rank in range(get_world_size())])
        barrier()

    def _file(self, rank: int) -> Path:
        return self._folder / pictures.FOLDER / f".tested.{rank}.jsonl"

    def _add(
        self,
        picture: Path,
        pixels: np.ndarray,
        record: dict[str, Any],
        scene: dict[str, Any] | None,
        measure: float | None,
    ) -> None:
        name = picture.relative_to(self._folder).as_posix()
        pictures.write_thumbnail(self._folder, name, picture)
        pictures.write_view(self._folder, name, pixels)
        if scene is not None:
            pictures.write_scene(self._folder, name, scene)
        line = {"file_name": name, "measure": measure} | record
        self._open.write(json.dumps(line) + "\n")

    def _entries(self, of: Boxes) -> list[dict[str, Any]]:
        boxes = of.boxes.double()
        rotated = boxes.shape[1] == 5
        bounds = (upright_bounds(boxes) if rotated else boxes).tolist()
        corners = box_corners(boxes).flatten(1).tolist() if rotated else None
        entries = []
        for number, (x1, y1, x2, y2) in enumerate(bounds):
            box = [round(value, _DIGITS) for value in (x1, y1, x2 - x1, y2 - y1)]
            entry: dict[str, Any] = {"label": self._classes[int(of.labels[number])], "bbox": box}
            if of.scores is not None:
                entry["score"] = round(float(of.scores[number]), 4)
            if corners is not None:
                entry["segmentation"] = [[round(value, _DIGITS) for value in corners[number]]]
            elif of.masks is not None:
                code = coco_mask.encode(np.asfortranarray(of.masks[number].astype(np.uint8)))
                entry["segmentation"] = {"size": list(code["size"]), "counts": code["counts"].decode()}
            entries.append(entry)
        return entries

    def _write(self, files: Sequence[Path]) -> None:
        places: dict[str, tuple[float | None, int, int]] = {}
        for number, file in enumerate(files):
            with file.open("rb") as lines:
                offset = 0
                for line in lines:
                    record = json.loads(line)
                    # Samplers of several processes give some images twice.
                    places[record["file_name"]] = (record["measure"], number, offset)
                    offset += len(line)
        facts = page.Facts(
            title=f"{self._folder.name}: tested images",
            unit="image",
            units="images",
            classes=self._classes,
            palette=self._palette,
            measure=self._measure,
        )
        page.write_page(self._folder, facts, _items(files, places), {})
        for file in files:
            os.unlink(file)


def f1(truth: Boxes, found: Boxes) -> float:
    """The harmonic mean of precision and recall: boxes of one class that overlap by half or more are paired, the
    surest first, each with the best that is left. 1 where nothing is true and nothing found.
    """
    if not len(truth.boxes) or not len(found.boxes):
        return float(len(truth.boxes) == len(found.boxes))
    one, other = found.boxes.float(), truth.boxes.float()
    if one.shape[1] != other.shape[1]:  # upright boxes of one of them
        one, other = (upright_bounds(boxes) if boxes.shape[1] == 5 else boxes for boxes in (one, other))
    overlaps = (box_iou_rotated if other.shape[1] == 5 else bbox_overlaps)(one, other)
    overlaps = overlaps * (found.labels[:, None] == truth.labels[None])
    order = range(len(found.boxes)) if found.scores is None else found.scores.argsort(descending=True, stable=True)
    pairs = 0
    for number in map(int, order):
        if float(overlaps[number].max()) >= _IOU:
            overlaps[:, int(overlaps[number].argmax())] = 0
            pairs += 1
    return 2 * pairs / (len(truth.boxes) + len(found.boxes))


def mean_iou(truth: np.ndarray, found: np.ndarray) -> float:
    """Intersection over union, the mean of the classes that are true or found where anything is true; 1 without any."""
    known = truth != NO_LABEL
    truth, found = truth[known].astype(np.int64), found[known].astype(np.int64)
    hits = np.bincount(truth[truth == found], minlength=NO_LABEL + 1)
    either = np.bincount(truth, minlength=NO_LABEL + 1) + np.bincount(found, minlength=NO_LABEL + 1) - hits
    return float((hits[either > 0] / either[either > 0]).mean()) if either.any() else 1.0


def truth_of(sample: Any) -> Boxes | None:
    """What is true of a sample of mmdet or mmrotate; None in test sets without labels."""
    instances = sample.get("gt_instances")
    return boxes_of(instances) if instances is not None and "bboxes" in instances else None


def boxes_of(instances: Any, shown: Tensor | None = None) -> Boxes:
    """Instances as mmdet and mmrotate have them, those that are `shown` (N,), on the CPU."""
    boxes = torch.as_tensor(getattr(instances.bboxes, "tensor", instances.bboxes)).detach().cpu()
    if not len(boxes):
        boxes = boxes.new_zeros(0, 4)
    elif boxes.shape[1] == 8:
        from mmrotate.structures.bbox import qbox2rbox

        boxes = qbox2rbox(boxes)
    labels = torch.as_tensor(instances.labels).cpu()
    scores = torch.as_tensor(instances.scores).detach().cpu() if "scores" in instances else None
    masks = instances.masks if "masks" in instances else None
    if masks is not None:
        to_array = getattr(masks, "to_ndarray", None)
        masks = (to_array() if to_array else torch.as_tensor(masks).cpu().numpy()).astype(bool)
    if shown is not None:
        kept = shown.cpu()
        boxes, labels, scores = boxes[kept], labels[kept], None if scores is None else scores[kept]
        masks = None if masks is None else masks[kept.numpy()]
    return Boxes(boxes, labels, scores, masks)


def _items(files: Sequence[Path], places: dict[str, tuple[float | None, int, int]]) -> Iterator[page.Item]:
    opened = [file.open("rb") for file in files]
    try:
        ordered = sorted((measure is None, measure or 0.0, name) for name, (measure, _, _) in places.items())
        for _, _, name in ordered:
            measure, number, offset = places[name]
            opened[number].seek(offset)
            record = json.loads(opened[number].readline())
            yield page.Item(
                name=name,
                record=record,
                objects=[(entry["label"], entry["score"]) for entry in record["detections"]],
                shares=record.pop("shares", {}),
                picture=name,
                files=[name],
                measure=measure,
            )
    finally:
        for file in opened:
            file.close()
