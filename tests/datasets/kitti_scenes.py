"""Small scenes in the layout of KITTI tracking, with points on the objects; for tests."""

import math
from pathlib import Path

import numpy as np
import torch

from perception.geometry import boxes3d

TR = np.array([[0.0, -1, 0, -0.01], [0, 0, -1, -0.08], [1, 0, 0, -0.27]])
"""Velodyne (x forward, y left) to camera (z forward, x right, y down)."""
SIZES = {"Car": (3.9, 1.6, 1.5), "Pedestrian": (0.8, 0.6, 1.75)}  # l, w, h


def rectification(degrees: float = 0.5) -> np.ndarray:
    """A turn about the camera's y axis and one about its x axis."""
    a = math.radians(degrees)
    about_y = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    return about_y @ about_x


def numbers(matrix: np.ndarray) -> str:
    return " ".join(f"{value:.12e}" for value in matrix.ravel())


def write_scene(root: Path, scene: str, objects: dict[int, tuple[str, list[list[float]]]], seed: int = 0) -> None:
    """Writes a scene of objects (category, rows of x, y, z, yaw from frame 0 on) with 60 points inside each."""
    rng = np.random.default_rng(seed)
    for folder in ("calib", "label_02", f"velodyne/{scene}"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rect = rectification()
    entries = [f"P0: {numbers(np.eye(3, 4))}", f"R_rect {numbers(rect)}", f"Tr_velo_cam {numbers(TR)}"]
    (root / "calib" / f"{scene}.txt").write_text("\n".join(entries) + "\n")
    pose = np.eye(4)
    pose[:3] = rect @ TR
    rect_from_velodyne = torch.from_numpy(pose)
    lines, frames = [], max(len(rows) for _, rows in objects.values())
    for frame in range(frames):
        clouds = [np.stack([rng.uniform(-20, 40, 300), rng.uniform(-20, 20, 300), np.full(300, -1.7)], 1)]
        for track, (category, rows) in objects.items():
            if frame >= len(rows):
                continue
            x, y, z, yaw = rows[frame]
            box = torch.tensor([x, y, z, *SIZES[category], yaw], dtype=torch.float64)
            local = torch.from_numpy(rng.uniform(-0.5, 0.5, (60, 3))) * box[3:6]
            clouds.append(boxes3d.from_box_frame(local, box).numpy())
            label = boxes3d.to_kitti(box[None], rect_from_velodyne)[0].tolist()
            lines.append(f"{frame} {track} {category} 0 0 -10 0 0 50 50 " + " ".join(f"{value:.9f}" for value in label))
        lines.append(f"{frame} -1 DontCare -1 -1 -10 0 0 9 9 -1 -1 -1 -1000 -1000 -1000 -10")
        cloud = np.concatenate(clouds)
        cloud = np.concatenate([cloud, np.zeros((len(cloud), 1))], 1).astype(np.float32)
        cloud.tofile(root / "velodyne" / scene / f"{frame:06d}.bin")
    (root / "label_02" / f"{scene}.txt").write_text("\n".join(lines) + "\n")


def street(root: Path, scenes: tuple[int, ...] = (0, 17, 19), frames: int = 6) -> Path:
    """A car that drives and a pedestrian that walks, in scenes of the three splits."""
    for scene in scenes:
        car = [[12.0 + 0.5 * t, 3.0 + scene * 0.1, -0.9, 0.3] for t in range(frames)]
        walker = [[9.0, -4.0 + 0.1 * t, -0.8, 1.4] for t in range(frames)]
        write_scene(root, f"{scene:04d}", {0: ("Car", car), 1: ("Pedestrian", walker)}, seed=scene)
    return root
