"""The driving world as a plain folder of camera rigs, without annotations.

`rig.json` holds each camera's size, intrinsics and pose on the vehicle, `frames/NAME/CAMERA.jpg` the images, and
`poses.json` when and where the vehicle was at each frame. All cameras of a frame are triggered at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .driving_rigs import nuscenes_rig
from .driving_view import pose_of_ego, render
from .jpeg import write_jpeg

if TYPE_CHECKING:
    from .driving import Params

START = 1_600_000_000_000_000  # microseconds
BETWEEN_SCENES = 100_000_000


def fill(folder: Path, params: Params, frame_is_done: Callable[[], None]) -> dict[str, dict[str, int]]:
    """Write everything into an empty folder; see :func:`.nuscenes_writer.fill`."""
    rig = nuscenes_rig(params.width, params.height, params.columns)
    cameras = {
        camera.name: {
            "width": camera.width,
            "height": camera.height,
            "intrinsics": camera.intrinsics.tolist(),
            "ego_from_camera": camera.ego_from_camera.tolist(),
        }
        for camera in rig.cameras
    }
    poses, counts = {}, {}
    for place, (split, number, world) in enumerate(params.worlds()):
        for frame, time in enumerate(params.times.tolist()):
            name = f"{split}_{number:03d}_{frame:04d}"
            (folder / "frames" / name).mkdir(parents=True)
            for camera in rig.cameras:
                write_jpeg(
                    folder / "frames" / name / f"{camera.name}.jpg", render(world, camera, time, params.samples).image
                )
            poses[name] = {
                "scene": f"{split}_{number:03d}",
                "timestamp": START + place * BETWEEN_SCENES + round(time * 1e6),
                "global_from_ego": _far_away(place, pose_of_ego(world, time)).tolist(),
            }
            frame_is_done()
        count = counts.setdefault(split, {"scenes": 0, "frames": 0})
        count["scenes"] += 1
        count["frames"] += len(params.times)
    (folder / "rig.json").write_text(json.dumps({"cameras": cameras}, indent=2) + "\n")
    (folder / "poses.json").write_text(json.dumps({"frames": poses}, indent=1) + "\n")
    return counts


def _far_away(place: int, pose: np.ndarray) -> np.ndarray:
    """Poses of scenes that do not lie on each other."""
    moved = pose.copy()
    moved[:2, 3] += (1000 + 400 * place, 2000)
    return moved
