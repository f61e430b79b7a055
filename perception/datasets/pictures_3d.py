"""Pictures of boxes in space: wire frames in a camera's image, and seen from above with the points of a LiDAR."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from perception.geometry import boxes3d, cameras

Colour = tuple[int, int, int]

_SHIFT = 4  # fractional bits of the coordinates that OpenCV is given
_FRONT_EDGES = 4  # of `boxes3d.EDGES`


def draw_wire_frames(image: np.ndarray, boxes: Tensor, matrix: Tensor, colours: Sequence[Colour]) -> np.ndarray:
    """Boxes as wire frames, the front with a cross; what lies behind the camera is left out.

    Args:
        image: (H, W, 3) uint8 RGB, left as it is.
        boxes: (N, 7+) in the matrix's frame.
        matrix: (4, 4) of :func:`perception.geometry.cameras.image_matrix`, for this image.
        colours: one for each box.

    Returns:
        A new picture.
    """
    picture = np.ascontiguousarray(image).copy()
    if not len(boxes):
        return picture
    matrix, boxes = matrix.double().cpu(), boxes.double().cpu()
    lines = torch.tensor([*boxes3d.EDGES, (0, 2), (1, 3)])
    homogeneous = boxes3d.corners(boxes) @ matrix[:3, :3].mT + matrix[:3, 3]  # (N, 8, 3): u depth, v depth, depth
    segments, there = cameras.cut_at_near(homogeneous[:, lines])  # linear, so that it may be cut before it is divided
    pixels = (segments[..., :2] / segments[..., 2:].clamp(min=1e-6)).numpy()
    thickness = max(1, round(max(image.shape[:2]) / 700))
    nearest_last = homogeneous[..., 2].mean(1).argsort(descending=True).tolist()
    for number in nearest_last:
        for edge in torch.nonzero(there[number])[:, 0].tolist():
            _line(picture, *pixels[number, edge], colours[number], thickness)
    return picture


def view_from_above(
    points: np.ndarray,
    boxes: Tensor,
    colours: Sequence[Colour],
    *,
    reach: float = 50.0,
    size: int = 600,
    forward: str = "x",
) -> np.ndarray:
    """Points and boxes around a vehicle, its front upwards.

    Args:
        points: (P, 2+) in metres.
        boxes: (N, 7+) in the points' frame; with columns 7 and 8, the way of half a second is drawn.
        colours: one for each box.
        reach: metres from the middle to the border.
        size: of the square picture in pixels.
        forward: the axis of the frame that points forward: "x" (a vehicle, KITTI) or "y" (nuScenes' LiDAR).

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        ValueError: unknown axis.
    """
    if forward not in ("x", "y"):
        raise ValueError(f"forward must be 'x' or 'y', not {forward!r}")
    turn = np.array([[0.0, -1], [1, 0]]) if forward == "x" else np.eye(2)  # to x right, y up
    scale = size / (2 * reach)

    def pixels(places: np.ndarray) -> np.ndarray:
        right, up = np.moveaxis(places @ turn.T, -1, 0)
        return np.stack([size / 2 + scale * right, size / 2 - scale * up], -1)

    picture = np.full((size, size, 3), 255, np.uint8)
    columns, rows = np.floor(pixels(np.asarray(points, np.float64)[:, :2])).astype(int).T
    inside = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    picture[rows[inside], columns[inside]] = 150
    boxes = boxes.double().cpu()
    outlines = boxes3d.ground_polygons(boxes).numpy()
    for number, outline in enumerate(outlines):
        placed = pixels(outline)
        for k in range(4):
            _line(picture, placed[k], placed[(k + 1) % 4], colours[number], 1)
        middle, front = boxes[number, :2].numpy(), outline[:2].mean(0)
        _line(picture, pixels(middle), pixels(front), colours[number], 2)
        velocity = boxes[number, 7:9].numpy()
        if len(velocity) and np.isfinite(velocity).all() and np.hypot(*velocity) > 0.2:
            _line(picture, pixels(middle), pixels(middle + 0.5 * velocity), (0, 0, 0), 1)
    return picture


def _line(picture: np.ndarray, start: np.ndarray, end: np.ndarray, colour: Colour, thickness: int) -> None:
    # OpenCV's coordinates are of pixel centres, ours of their corners. Ends far outside overflow its integers: cut.
    height, width = picture.shape[:2]
    limit = 8 * max(height, width)
    first, second = (np.asarray(end, np.float64) - 0.5 for end in (start, end))
    low, high = 0.0, 1.0
    for axis, bound in ((0, width), (1, height)):
        step = second[axis] - first[axis]
        for distance, direction in ((first[axis] + limit, -step), (bound + limit - first[axis], step)):
            if direction > 0:
                high = min(high, distance / direction)
            elif direction < 0:
                low = max(low, distance / direction)
            elif distance < 0:
                return
    if low < high:
        ends = [
            tuple(np.round((first + share * (second - first)) * 2**_SHIFT).astype(int).tolist())
            for share in (low, high)
        ]
        cv2.line(picture, *ends, colour, thickness, cv2.LINE_AA, _SHIFT)
