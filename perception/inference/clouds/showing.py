"""Clouds on a run's page."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from perception.datasets.clouds.cloud import Cloud
from perception.geometry import boxes3d, se3
from perception.inference.scan import Source
from perception.inference.showing import Exhibit, Showing
from perception.inference.writing import Record

from .predictor import Track, Tracks

POINTS = 12_000
"""Of a cloud that a page shows, evenly taken from its file."""

_DIGITS = 3
_REACH = 327.0  # metres that 16 bits of hundredths hold


class CloudsShowing(Showing):
    """Points and boxes in the sensor's frame, and where targets came from."""

    named_by_files = True

    def exhibit(self, source: Source, sample: Cloud, found: Tracks, meta: Any) -> Exhibit:
        sensor_from_world = se3.invert(found.world_from_sensor)
        boxes = [_entry(track, sensor_from_world) for track in found.tracks]
        return Exhibit(scene={"points": encoded(sample.xyz), "boxes": boxes, "forward": "x"})

    def objects(self, record: Record) -> Iterable[tuple[str, float | None]]:
        for track in record["tracks"]:
            yield track["category"], track["score"]


def encoded(points: np.ndarray) -> str:
    """Some of the points (N, 3), metres, as little-endian 16-bit hundredths in base 64; far ones are left out."""
    near = points[(np.abs(points[:, :3]) < _REACH).all(1), :3]
    some = near[:: max(1, -(-len(near) // POINTS))]
    return base64.b64encode(np.round(100 * some).astype("<i2").tobytes()).decode()


def _entry(track: Track, sensor_from_world: torch.Tensor) -> dict[str, Any]:
    box = boxes3d.transform(track.box[None], sensor_from_world)[0]
    places = torch.cat([track.trail, track.box[2].expand(len(track.trail), 1)], 1)
    trail = se3.transform_points(sensor_from_world, places)[:, :2]
    return {
        "id": track.identity,
        "label": track.category,
        "score": None if math.isnan(track.score) else round(track.score, 6),
        "status": "" if track.status in ("ok", "given") else track.status,
        "box": np.round(box.double().numpy(), _DIGITS).tolist(),
        "trail": np.round(trail.double().numpy(), _DIGITS).tolist(),
    }
