"""Scenes of light bars, a model that finds them, and runs over pyramids of such images."""

import json

import cv2
import numpy as np
import torch

from perception.geometry.rotated_boxes import as_le90
from perception.inference.folder import Job
from perception.inference.images.detector import Prepared
from perception.inference.images.results import Detections
from perception.ops.box_iou_rotated import box_iou_rotated

GROUND, LIGHT = 90, 200


class Finder:
    """Finds what is light, as far as its window shows it; light with much red is of the second class."""

    classes, palette, input_size, fuses = ("bridge", "jetty"), [(255, 64, 64), (64, 64, 255)], None, False
    stop_after = None

    def __init__(self, cfg, checkpoint, device):
        self.windows = []

    def prepare_window(self, pixels, name, factor, around):
        data = {"pixels": pixels, "factor": factor, "around": around}
        return Prepared(data, pixels.shape)

    def predict(self, batch, score_thr):
        if self.stop_after is not None and len(self.windows) + len(batch) > self.stop_after:
            raise KeyboardInterrupt
        self.windows += [prepared.data for prepared in batch]
        return [self._found(prepared.data["pixels"]) for prepared in batch]

    def _found(self, pixels):
        # Reduced, a thin bar is paler.
        light = ((pixels[..., 1] > (GROUND + LIGHT) / 2) & (pixels[..., 2] > (GROUND + LIGHT) / 2)).astype(np.uint8)
        count, parts = cv2.connectedComponents(light)
        boxes, labels = [], []
        for part in range(1, count):
            rows, columns = np.nonzero(parts == part)
            if len(rows) > 3:
                points = np.stack([columns, rows], 1).astype(np.float32) + 0.5
                (x, y), (width, height), angle = cv2.minAreaRect(points)
                # From the centres of pixels to their edges; the short side follows from the area.
                long, turn = (width + 1, 0) if width > height else (height + 1, 90)
                boxes.append([x, y, long, len(rows) / long, np.deg2rad(angle + turn)])
                labels.append(int(pixels[rows, columns, 0].mean() > 228))
        boxes = as_le90(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 5)).numpy()
        # What is seen longer is surer.
        scores = 0.5 + np.minimum(boxes[:, 2] / pixels.shape[1], 1) * 0.4
        order = np.argsort(-scores, kind="stable")
        return Detections(boxes[order], scores[order].astype(np.float32), np.array(labels, np.int64)[order])


def make_job(files, folder, out, **changes):
    run_options = {key: changes.pop(key) for key in ("batch_size", "pictures", "overwrite") if key in changes}
    return Job(
        config=str(files.config), checkpoint=files.checkpoint, folder=folder, out=out, device="cpu", workers=1,
        options={"score_thr": 0.0, **changes}, **run_options,
    )  # fmt: skip


def make_scene(width, height, bars):
    """Light bars (cx, cy, length, width, angle, red) on dull ground."""
    image = np.full((height, width, 3), GROUND, np.uint8)
    for x, y, length, breadth, angle, red in bars:
        corners = cv2.boxPoints(((x, y), (length, breadth), np.rad2deg(angle)))
        cv2.fillPoly(image, [np.round((corners - 0.5) * 16).astype(np.int32)], (red, LIGHT, LIGHT), cv2.LINE_AA, 4)
    return image


def records_of(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").open()]


def boxes_of(record, label=None):
    entries = [entry for entry in record["detections"] if label in (None, entry["label"])]
    return torch.tensor([entry["rbox"] for entry in entries]).reshape(-1, 5)


def best_overlap(boxes, truth):
    return float(box_iou_rotated(boxes, torch.tensor([truth], dtype=torch.float32)).max())
