"""A picture of one frame of a rig: the cameras in their places with boxes as wire frames, and the view from above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perception.datasets.palette import Colour
from perception.datasets.pictures_3d import draw_wire_frames, view_from_above
from perception.geometry import cameras, se3

VIEW_WIDTH = 400
"""Pixels of each camera."""


@dataclass(frozen=True)
class View:
    """What a camera saw, and from where.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        intrinsics: (3, 3), in its pixels.
        lidar_from_camera: (4, 4), OpenCV axes; x of the LiDAR's frame points right and y forward.
    """

    image: np.ndarray
    intrinsics: np.ndarray
    lidar_from_camera: np.ndarray


def draw_sheet(
    views: Sequence[View],
    boxes: Tensor,
    colours: Sequence[Colour],
    points: np.ndarray,
    legend: Mapping[str, Colour] | None = None,
) -> np.ndarray:
    """Two rows of cameras, those that look ahead over those that look back, and the view from above beside them.

    Args:
        views: of one frame, in any order.
        boxes: (N, 7+) in the LiDAR's frame.
        colours: one for each box.
        points: (P, 3) of the LiDAR; may be none.
        legend: words in colours, for the corner of the view from above.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    rows = [[_draw(view, boxes, colours) for view in row] for row in as_seen(views)]
    height, columns = max(view.shape[0] for row in rows for view in row), max(map(len, rows))
    sheet = np.full((2 * height, columns * VIEW_WIDTH, 3), 255, np.uint8)
    for number, row in enumerate(rows):
        for column, view in enumerate(row):
            top, left = number * height, column * VIEW_WIDTH
            sheet[top : top + len(view), left : left + VIEW_WIDTH] = view
    above = view_from_above(points, boxes, colours, size=sheet.shape[0], forward="y")
    for number, (word, colour) in enumerate((legend or {}).items(), 1):
        cv2.putText(above, word, (6, 16 * number), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
    return np.concatenate([sheet, above], 1)


def as_seen(views: Sequence[View]) -> list[list[View]]:
    """The cameras that look ahead and those that look back, each from left to right."""
    axes = {id(view): np.asarray(view.lidar_from_camera)[:2, 2] for view in views}
    rows = ([v for v in views if axes[id(v)][1] >= 0], [v for v in views if axes[id(v)][1] < 0])
    return [sorted(row, key=lambda view: axes[id(view)][0]) for row in rows]


def _draw(view: View, boxes: Tensor, colours: Sequence[Colour]) -> np.ndarray:
    height, width = view.image.shape[:2]
    scale = VIEW_WIDTH / width
    image = Image.fromarray(view.image).resize((VIEW_WIDTH, round(height * scale)), Image.Resampling.LANCZOS)
    pose = se3.invert(torch.from_numpy(np.asarray(view.lidar_from_camera, np.float64)))
    intrinsics = torch.from_numpy(np.asarray(view.intrinsics, np.float64))
    small = cameras.crop_and_resize(intrinsics, (0, 0), (scale, scale))
    return draw_wire_frames(np.asarray(image), boxes, cameras.image_matrix(small, pose), colours)
