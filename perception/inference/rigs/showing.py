"""Rigs on a run's page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from perception.datasets.driving.sheets import View, as_seen
from perception.datasets.palette import Colour, default_palette
from perception.geometry import cameras, se3
from perception.inference.scan import Source
from perception.inference.showing import Exhibit, Showing
from perception.inference.writing import Record

from .predictor import Found
from .reader import RigFrame

WIDTH = 640
"""Pixels of each camera."""

_DIGITS = 4


class RigsShowing(Showing):
    """The cameras in their places, without anything drawn on them, and boxes in the LiDAR's frame."""

    def exhibit(self, source: Source, sample: RigFrame, found: Found, meta: Any) -> Exhibit:
        views = [
            View(image, np.array(camera.intrinsics), np.array(camera.lidar_from_camera))
            for camera, image in zip(source.details.cameras, sample.images, strict=True)
        ]
        sheet, placed = _sheet(views)
        columns = found.boxes[:, :7].double().numpy(), found.scores.tolist(), found.labels.tolist()
        boxes = [
            {"label": meta["classes"][label], "score": round(score, 4), "box": np.round(box, _DIGITS).tolist()}
            for box, score, label in zip(*columns)
        ]
        scene = {"cameras": placed, "size": [sheet.shape[1], sheet.shape[0]], "boxes": boxes, "forward": "y"}
        return Exhibit(sheet, scene)

    def classes(self, meta: Any) -> tuple[Sequence[str], Sequence[Colour]]:
        return meta["classes"], default_palette(len(meta["classes"]))

    def objects(self, record: Record) -> Iterable[tuple[str, float | None]]:
        for box in record["boxes"]:
            yield box["name"], box["score"]


def _sheet(views: Sequence[View]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The cameras in two rows, (H, W, 3); where each lies, and the rows of its (3, 4) matrix from the LiDAR's frame."""
    rows = [row for row in as_seen(views) if row]
    heights = [max(round(view.image.shape[0] * WIDTH / view.image.shape[1]) for view in row) for row in rows]
    sheet = np.zeros((sum(heights), WIDTH * max(map(len, rows)), 3), np.uint8)
    placed, top = [], 0
    for row, height in zip(rows, heights):
        for column, view in enumerate(row):
            scale, left = WIDTH / view.image.shape[1], column * WIDTH
            size = (WIDTH, round(view.image.shape[0] * scale))
            sheet[top : top + size[1], left : left + WIDTH] = np.asarray(
                Image.fromarray(view.image).resize(size, Image.Resampling.LANCZOS)
            )
            pose = se3.invert(torch.from_numpy(np.asarray(view.lidar_from_camera, np.float64)))
            intrinsics = torch.from_numpy(np.asarray(view.intrinsics, np.float64))
            small = cameras.crop_and_resize(intrinsics, (0, 0), (scale, scale))
            matrix = cameras.image_matrix(small, pose)[:3].numpy().copy()
            matrix[0] += left * matrix[2]
            matrix[1] += top * matrix[2]
            placed.append({"at": [left, top, *size], "matrix": np.round(matrix.ravel(), 6).tolist()})
        top += height
    return sheet, placed
