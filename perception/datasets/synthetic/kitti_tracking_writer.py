"""The driving world in the layout of KITTI's tracking benchmark.

`training/{velodyne,image_02,label_02,calib}`, ten frames a second. Training scenes are sequences 0000 to 0016 and
validation scenes 0017 to 0020, as single-object trackers split KITTI. Objects are labelled while the camera sees them,
so that a track may have gaps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from perception.geometry import boxes3d, cameras, se3

from .driving_bodies import KINDS
from .driving_rigs import Rig, kitti_rig
from .driving_view import View, pose_of_ego, render, scan
from .driving_world import World

if TYPE_CHECKING:
    from .driving import Params

FIRST = {"train": 0, "val": 17}
"""Number of the first sequence of each split."""

R_RECT = Rotation.from_euler("xy", [0.5, 0.5], degrees=True).as_matrix()
BASELINE = 0.06  # metres from the colour camera to the rectified frame, that of the grey one
FEWEST_PIXELS = 6  # of an object that is labelled


def fill(folder: Path, params: Params, frame_is_done: Callable[[], None]) -> dict[str, dict[str, int]]:
    """Write everything into an empty folder; see :func:`.nuscenes_writer.fill`."""
    rig, root, counts = kitti_rig(params.width, params.height, params.columns), folder / "training", {}
    for kind in ("velodyne", "image_02", "label_02", "calib"):
        (root / kind).mkdir(parents=True)
    for split, number, world in params.worlds():
        sequence = f"{FIRST[split] + number:04d}"
        (root / f"calib/{sequence}.txt").write_text(_calibration(rig))
        for kind in ("velodyne", "image_02"):
            (root / kind / sequence).mkdir()
        rng = np.random.default_rng((params.seed, 3, FIRST[split] + number))
        lines = []
        for frame, time in enumerate(params.times.tolist()):
            view = render(world, rig.cameras[0], time, params.samples)
            Image.fromarray(view.image).save(root / f"image_02/{sequence}/{frame:06d}.png")
            found, _ = scan(world, rig.lidar, time, rng)
            cloud = np.concatenate([found.points, found.intensity[:, None]], 1).astype("<f4")
            cloud.tofile(root / f"velodyne/{sequence}/{frame:06d}.bin")
            lines += _labels(world, rig, view, frame, time)
            frame_is_done()
        (root / f"label_02/{sequence}.txt").write_text("".join(lines))
        count = counts.setdefault(split, {"scenes": 0, "frames": 0, "boxes": 0})
        for name, value in (("scenes", 1), ("frames", len(params.times)), ("boxes", len(lines))):
            count[name] += value
    return counts


def _rect_from_velodyne(rig: Rig) -> np.ndarray:
    camera_from_rect = np.eye(4)
    camera_from_rect[0, 3] = BASELINE
    ego_from_rect = rig.cameras[0].ego_from_camera @ camera_from_rect
    return np.linalg.inv(ego_from_rect) @ rig.lidar.ego_from_lidar


def _calibration(rig: Rig) -> str:
    """As KITTI writes it: matrices in rows, some keys with a colon and some without."""
    intrinsics = rig.cameras[0].intrinsics
    rectify = np.eye(4)
    rectify[:3, :3] = R_RECT
    grey = np.pad(intrinsics, ((0, 0), (0, 1)))
    colour = grey.copy()
    colour[:, 3] = intrinsics @ [BASELINE, 0, 0]
    rows = {f"P{k}:": grey if k < 2 else colour for k in range(4)}
    rows["R_rect"] = R_RECT
    rows["Tr_velo_cam"] = (np.linalg.inv(rectify) @ _rect_from_velodyne(rig))[:3]
    rows["Tr_imu_velo"] = np.eye(4)[:3]
    return "".join(f"{key} {' '.join(f'{value:.12e}' for value in row.reshape(-1))}\n" for key, row in rows.items())


def _labels(world: World, rig: Rig, view: View, frame: int, time: float) -> list[str]:
    """One line for each object that the camera sees."""
    camera = rig.cameras[0]
    if not world.actors:
        return []
    velodyne_from_world = torch.from_numpy(np.linalg.inv(pose_of_ego(world, time) @ rig.lidar.ego_from_lidar))
    boxes = boxes3d.transform(torch.from_numpy(np.stack([a.box(time) for a in world.actors])), velodyne_from_world)
    rect_from_velodyne = torch.from_numpy(_rect_from_velodyne(rig))
    labels = boxes3d.to_kitti(boxes, rect_from_velodyne).numpy()
    camera_from_velodyne = torch.from_numpy(np.linalg.inv(camera.ego_from_camera) @ rig.lidar.ego_from_lidar)
    corners = se3.transform_points(camera_from_velodyne, boxes3d.corners(boxes).flatten(0, 1)).view(-1, 8, 3)
    lines = []
    for number, actor in enumerate(world.actors):
        if view.visible[number] < FEWEST_PIXELS:
            continue
        edges, there = cameras.cut_at_near(corners[number][torch.tensor(boxes3d.EDGES)])
        matrix = cameras.image_matrix(torch.from_numpy(camera.intrinsics), torch.eye(4, dtype=torch.float64))
        pixels = cameras.project(edges[there].flatten(0, 1), matrix).pixels.numpy()
        limit = (camera.width - 1, camera.height - 1)
        whole = np.concatenate([pixels.min(0), pixels.max(0)])
        clipped = np.concatenate([pixels.min(0).clip(0, limit), pixels.max(0).clip(0, limit)])
        truncated = int((np.abs(whole - clipped) > 1).any())
        share = view.visible[number] / max(view.alone[number], 1)
        occluded = 0 if share > 0.8 else 1 if share > 0.4 else 2
        h, w, length, x, y, z, rotation = labels[number]
        alpha = np.angle(np.exp(1j * (rotation - np.arctan2(x, z))))
        numbers = (alpha, *clipped, h, w, length, x, y, z, rotation)
        kind = KINDS[actor.kind].kitti
        text = " ".join(f"{value:.6f}" for value in numbers)
        lines.append(f"{frame} {number} {kind} {truncated} {occluded} {text}\n")
    return lines
