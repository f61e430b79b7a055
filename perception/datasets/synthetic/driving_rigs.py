"""The sensors of the recorded vehicles: those of nuScenes, and those of KITTI."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from .sensors import Camera, Lidar

OPTICAL_AXES = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
"""Camera axes (x right, y down, z forward) in those of a vehicle that looks the same way (x forward, y left, z up)."""

# Names, translations and directions (degrees to the left) on the vehicle, focal lengths in pixels of 1600 x 900, and
# when they are triggered, in microseconds after the LiDAR's turn ends: as on nuScenes' vehicles.
_CAMERAS = (
    ("CAM_FRONT", (1.701, 0.016, 1.511), 0.3, 1266.4, -35491),
    ("CAM_FRONT_RIGHT", (1.551, -0.493, 1.496), -56.4, 1260.8, -27612),
    ("CAM_FRONT_LEFT", (1.524, 0.495, 1.509), 55.9, 1272.6, -43107),
    ("CAM_BACK", (0.028, 0.003, 1.579), 180.2, 809.2, -10426),
    ("CAM_BACK_LEFT", (1.036, 0.485, 1.591), 108.5, 1256.7, -528),
    ("CAM_BACK_RIGHT", (1.015, -0.481, 1.562), -110.6, 1259.5, -20058),
)
TRIGGERS = {name: trigger for name, *_, trigger in _CAMERAS}
"""Microseconds after the end of the LiDAR's turn."""


@dataclass(frozen=True)
class Rig:
    """Cameras and a LiDAR."""

    cameras: tuple[Camera, ...]
    lidar: Lidar


def nuscenes_rig(width: int, height: int, columns: int) -> Rig:
    """Six cameras and LIDAR_TOP; the LiDAR's x axis points right and its y axis forward.

    Args:
        width, height: of the images.
        columns: beams of each of the LiDAR's 32 rings.
    """
    cameras = tuple(
        Camera(name, width, height, _intrinsics(width, height, focal / 1600, 0.5102, 0.5461), _mounted(place, yaw))
        for name, place, yaw, focal, _ in _CAMERAS
    )
    mount = _pose(Rotation.from_euler("ZYX", [-89.9, -0.3, 1.4], degrees=True).as_matrix(), (0.944, 0.0, 1.84))
    return Rig(cameras, Lidar(tuple(np.radians(np.linspace(-30.67, 10.67, 32)).tolist()), columns, mount))


def kitti_rig(width: int, height: int, columns: int) -> Rig:
    """The left colour camera and the Velodyne with 64 rings, whose frame is the vehicle's, 1.73 m above the ground.

    The camera is tilted by what KITTI's `R_rect` and `Tr_velo_cam` have on average: axes are not quite parallel.
    """
    tilt = Rotation.from_euler("xyz", [0.8, -0.4, 0.45], degrees=True).as_matrix()
    camera = Camera(
        "image_02",
        width,
        height,
        _intrinsics(width, height, 721.5 / 1242, 0.491, 0.461),
        _pose(OPTICAL_AXES @ tilt, (0.33, 0.0, 1.65)),
    )
    mount = _pose(np.eye(3), (0.0, 0.0, 1.73))
    return Rig((camera,), Lidar(tuple(np.radians(np.linspace(-24.8, 2.0, 64)).tolist()), columns, mount))


def _mounted(place: tuple[float, float, float], yaw: float) -> np.ndarray:
    tilt = Rotation.from_euler("xz", [0.3, -0.2], degrees=True).as_matrix()
    return _pose(Rotation.from_euler("z", yaw, degrees=True).as_matrix() @ OPTICAL_AXES @ tilt, place)


def _intrinsics(width: int, height: int, focal: float, centre_u: float, centre_v: float) -> np.ndarray:
    """Focal length in widths of the image, principal point in shares of its sides."""
    return np.array([[focal * width, 0, centre_u * width], [0, focal * width, centre_v * height], [0, 0, 1.0]])


def _pose(rotation: np.ndarray, translation: tuple[float, float, float]) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, translation
    return pose
