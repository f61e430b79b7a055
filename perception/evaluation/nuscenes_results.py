"""Detections as nuScenes' files of results: boxes in the global frame, with attributes.

This is where the LiDAR's frame ends. Boxes come in with their centres in the middle and go out so; nothing here shifts
them by half a height.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from perception.engine.atomic import replacing
from perception.geometry import se3

MOST_BOXES = 500
"""That the benchmark allows for a frame."""

MOVING = 0.2  # m/s, from which an object counts as moving
_MOVING_ATTRIBUTES = {
    **dict.fromkeys(("car", "construction_vehicle", "bus", "truck", "trailer"), "vehicle.moving"),
    **dict.fromkeys(("bicycle", "motorcycle"), "cycle.with_rider"),
    "pedestrian": "pedestrian.moving",
}
_STANDING_ATTRIBUTES = {
    **dict.fromkeys(("car", "construction_vehicle", "truck", "trailer"), "vehicle.parked"),
    "bus": "vehicle.stopped",
    **dict.fromkeys(("bicycle", "motorcycle"), "cycle.without_rider"),
    "pedestrian": "pedestrian.standing",
}

RANGES = {
    **dict.fromkeys(("car", "truck", "bus", "trailer", "construction_vehicle"), 50.0),
    **dict.fromkeys(("pedestrian", "motorcycle", "bicycle"), 40.0),
    **dict.fromkeys(("traffic_cone", "barrier"), 30.0),
}
"""Metres from the vehicle within which a class is scored (`detection_cvpr_2019`)."""


@dataclass(frozen=True)
class Detections:
    """What was found in one frame.

    Attributes:
        boxes: (N, 9) in the LiDAR's frame, as in `perception.geometry.boxes3d`, with velocities over the ground.
        scores: (N,).
        names: N detection classes.
        ego_from_lidar, global_from_ego: poses (4, 4) of the frame.
        attributes: N names of nuScenes, or None: by :func:`usual_attribute`.
    """

    boxes: Tensor
    scores: Tensor
    names: Sequence[str]
    ego_from_lidar: Tensor
    global_from_ego: Tensor
    attributes: Sequence[str] | None = None


def usual_attribute(name: str, speed: float) -> str:
    """The attribute that objects of a class mostly have at a speed in m/s, "" for classes without.

    Example:
        >>> usual_attribute("car", 3.0), usual_attribute("bus", 0.0), usual_attribute("barrier", 0.0)
        ('vehicle.moving', 'vehicle.stopped', '')
    """
    return (_MOVING_ATTRIBUTES if speed > MOVING else _STANDING_ATTRIBUTES).get(name, "")


def result_rows(token: str, found: Detections) -> list[dict]:
    """A frame's rows of a file of results: the best boxes within the ranges of their classes.

    Args:
        token: of the sample.
        found: its detections. An unknown velocity (NaN) is written as 0, as the format has no word for it.
    """
    boxes = found.boxes.double().cpu()
    ego_from_lidar, global_from_ego = found.ego_from_lidar.double().cpu(), found.global_from_ego.double().cpu()
    global_from_lidar = global_from_ego @ ego_from_lidar
    centres = se3.transform_points(ego_from_lidar, boxes[:, :3])
    distance = centres[:, :2].norm(dim=1).tolist()
    places = se3.transform_points(global_from_lidar, boxes[:, :3])
    turned = global_from_lidar[:3, :3] @ se3.rotation_about_z(boxes[:, 6])
    rotations = se3.matrix_to_quaternion(turned)
    flat = torch.nn.functional.pad(boxes[:, 7:9], (0, 1)).nan_to_num(nan=0.0)
    velocities = (flat @ global_from_lidar[:3, :3].mT)[:, :2]
    order = found.scores.argsort(descending=True, stable=True).tolist()
    rows = []
    for k in order:
        name = found.names[k]
        if distance[k] > RANGES[name]:
            continue
        speed = math.hypot(*velocities[k].tolist())
        attribute = usual_attribute(name, speed) if found.attributes is None else found.attributes[k]
        rows.append(
            {
                "sample_token": token,
                "translation": places[k].tolist(),
                "size": boxes[k, [4, 3, 5]].tolist(),
                "rotation": rotations[k].tolist(),
                "velocity": velocities[k].tolist(),
                "detection_name": name,
                "detection_score": float(found.scores[k]),
                "attribute_name": attribute,
            }
        )
    return rows[:MOST_BOXES]


Rows = Sequence[dict]


def write_results(
    path: str | Path, results: Mapping[str, Rows] | Iterable[tuple[str, Rows]], frame: str = "global"
) -> None:
    """A file of results in the benchmark's format; whole or not there.

    Args:
        path: where to.
        results: rows of :func:`result_rows` by token, a mapping or pairs, which are written one by one.
        frame: of the boxes; the benchmark takes global ones alone.
    """
    used = dict(use_camera=True, use_lidar=False, use_radar=False, use_map=False, use_external=False)
    # `meta` also says what the format leaves unsaid: there is one frame, and one point of a box that is its place.
    meta = used | {"frame": frame, "translation": "centre of the whole box"}
    pairs = results.items() if isinstance(results, Mapping) else results
    with replacing(path) as file:
        file.write(b'{"meta": ' + json.dumps(meta).encode() + b', "results": {')
        for number, (token, rows) in enumerate(pairs):
            comma = ", " if number else ""
            file.write(f"{comma}{json.dumps(token)}: {json.dumps(list(rows), allow_nan=False)}".encode())
        file.write(b"}}")
