"""A cloud with the targets that are followed in it: seen from above, and over the sensor's shoulder."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from perception.datasets.palette import Colour, default_palette
from perception.datasets.pictures_3d import draw_wire_frames, view_from_above
from perception.geometry import boxes3d, cameras, se3

from .predictor import Track

SIZE = 640
"""Pixels of each of both squares."""
REACH = 40.0
"""Metres from the sensor to the border of the view from above."""

_PALETTE = default_palette(20)
_EYE = (-14.0, 0.0, 9.0)
_DOWN = 0.32  # radians below the horizon


def draw_tracks(points: np.ndarray, tracks: Sequence[Track], sensor_from_world: Tensor) -> np.ndarray:
    """Both views, side by side.

    Args:
        points: (N, 3) in the sensor's frame, metres, x forward.
        tracks: in the world's.
        sensor_from_world: (4, 4).

    Returns:
        (SIZE, 2 SIZE, 3) uint8 RGB.
    """
    boxes = torch.stack([track.box for track in tracks]) if tracks else torch.zeros(0, 7, dtype=torch.float64)
    boxes = boxes3d.transform(boxes, sensor_from_world)
    colours = [_PALETTE[(track.number - 1) % len(_PALETTE)] for track in tracks]
    trails = [_trail(track, sensor_from_world) for track in tracks]
    above = view_from_above(points, boxes, colours, reach=REACH, size=SIZE)
    for track, trail, colour in zip(tracks, trails, colours, strict=True):
        pixels = np.stack([SIZE / 2 - trail[:, 1] * SIZE / (2 * REACH), SIZE / 2 - trail[:, 0] * SIZE / (2 * REACH)], 1)
        _polyline(above, pixels, colour)
        _write(above, track, pixels[-1] + 6, colour)
    matrix = _matrix()
    behind = draw_wire_frames(_points_in_perspective(points, matrix), boxes, matrix, colours)
    for track, trail, box, colour in zip(tracks, trails, boxes, colours, strict=True):
        ground = np.concatenate([trail, np.full((len(trail), 1), float(box[2] - box[5] / 2))], 1)
        seen = cameras.project(torch.from_numpy(ground), matrix)
        _polyline(behind, seen.pixels[seen.valid].numpy(), colour)
        top = cameras.project((box[:3] + torch.tensor([0, 0, float(box[5]) / 2 + 0.3]))[None], matrix)
        if bool(top.valid[0]):
            _write(behind, track, top.pixels[0].numpy(), colour)
    return np.concatenate([above, behind], 1)


def _trail(track: Track, sensor_from_world: Tensor) -> np.ndarray:
    places = torch.cat([track.trail, track.box[2].expand(len(track.trail), 1)], 1)
    return se3.transform_points(sensor_from_world, places)[:, :2].numpy()


def _matrix() -> Tensor:
    """Of a camera behind and above the sensor, which looks ahead and down."""
    intrinsics = torch.tensor([[0.9 * SIZE, 0, SIZE / 2], [0, 0.9 * SIZE, SIZE / 2], [0, 0, 1]], dtype=torch.float64)
    down = torch.tensor(_DOWN, dtype=torch.float64)
    cos, sin = down.cos(), down.sin()
    zero, one = torch.zeros_like(down), torch.ones_like(down)
    rotation = torch.stack([zero, -one, zero, -sin, zero, -cos, cos, zero, -sin]).view(3, 3)  # right, down, ahead
    eye = torch.tensor(_EYE, dtype=torch.float64)
    return cameras.image_matrix(intrinsics, se3.compose(rotation, -rotation @ eye))


def _points_in_perspective(points: np.ndarray, matrix: Tensor) -> np.ndarray:
    """Near points over far ones, coloured by height."""
    picture = np.full((SIZE, SIZE, 3), 255, np.uint8)
    seen = cameras.project(torch.from_numpy(np.asarray(points, np.float64)), matrix, near=0.5)
    pixels, valid = seen.pixels.numpy(), seen.valid.numpy()
    valid &= cameras.inside_image(seen.pixels, SIZE, SIZE).numpy()
    order = np.argsort(-seen.depth.numpy()[valid])
    columns, rows = pixels[valid][order].astype(int).T
    height = np.clip((points[valid, 2][order] + 2.5) / 5, 0, 1)
    shades = cv2.applyColorMap((255 * (1 - height)).astype(np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    picture[rows, columns] = shades
    return picture


def _polyline(picture: np.ndarray, pixels: np.ndarray, colour: Colour) -> None:
    near = pixels[(np.abs(pixels) < 8 * SIZE).all(1)]
    if len(near) > 1:
        cv2.polylines(picture, [np.round(near).astype(np.int32)], False, colour, 2, cv2.LINE_AA)


def _write(picture: np.ndarray, track: Track, place: np.ndarray, colour: Colour) -> None:
    words = track.identity if track.status in ("ok", "given") else f"{track.identity} {track.status}"
    if (np.abs(place) < 8 * SIZE).all():
        position = (int(place[0]), int(place[1]))
        cv2.putText(picture, words, position, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
