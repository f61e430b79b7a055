"""Sensors of a vehicle that look at a scene of solids: rectangular cameras and a turning LiDAR.

Poses are (4, 4) float64 on column vectors. Camera frames have OpenCV axes (x right, y down, z forward).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .raycasting import CORNER_EDGES, Hits, Scene

_NEAR = 0.02  # metres before a camera in which nothing stands


@dataclass(frozen=True)
class Camera:
    """A pinhole camera on a vehicle."""

    name: str
    width: int
    height: int
    intrinsics: np.ndarray  # (3, 3) in pixels
    ego_from_camera: np.ndarray  # (4, 4)

    def rays(self, world_from_camera: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Origins and directions (height * width * samples^2, 3), row by row, the samples of a pixel together.

        Directions are 1 long along the viewing axis, so that a ray's parameter is a depth.
        """
        fractions = (np.arange(samples) + 0.5) / samples
        v = (np.arange(self.height)[:, None, None, None] + fractions[:, None] - self.intrinsics[1, 2]) / self._focal[1]
        u = (np.arange(self.width)[:, None, None] + fractions - self.intrinsics[0, 2]) / self._focal[0]
        u, v = np.broadcast_arrays(u[None], v)  # (height, width, samples, samples)
        local = np.stack([u, v, np.ones_like(u)], -1).reshape(-1, 3)
        directions = local @ world_from_camera[:3, :3].T
        return np.broadcast_to(world_from_camera[:3, 3], directions.shape), directions

    def candidates(self, scene: Scene, world_from_camera: np.ndarray, samples: int) -> list[np.ndarray]:
        """For each solid, the numbers of the rays whose pixels lie in the rectangle around its picture."""
        rotation, position = world_from_camera[:3, :3], world_from_camera[:3, 3]
        pixels = np.arange(self.height * self.width).reshape(self.height, self.width)
        found = []
        for solid in scene.solids:
            corners = (solid.corners() - position) @ rotation
            seen = _before_the_camera(corners)
            if not len(seen):
                found.append(np.zeros(0, np.int64))
                continue
            u, v = (seen[:, :2] / seen[:, 2:] * self._focal + self.intrinsics[:2, 2]).T
            rows = slice(max(0, int(np.floor(v.min()))), max(0, min(self.height, int(np.ceil(v.max())))))
            columns = slice(max(0, int(np.floor(u.min()))), max(0, min(self.width, int(np.ceil(u.max())))))
            chosen = pixels[rows, columns].reshape(-1, 1)
            found.append((chosen * samples**2 + np.arange(samples**2)).reshape(-1))
        return found

    @property
    def _focal(self) -> np.ndarray:
        return self.intrinsics[[0, 1], [0, 1]]


def _before_the_camera(corners: np.ndarray) -> np.ndarray:
    """Corners (8, 3) of a box in the camera's frame, cut at the near plane: points whose hull is what can be seen."""
    front = corners[:, 2] >= _NEAR
    if front.all() or not front.any():
        return corners[front]
    first, second = corners[CORNER_EDGES[:, 0]], corners[CORNER_EDGES[:, 1]]
    crosses = front[CORNER_EDGES[:, 0]] != front[CORNER_EDGES[:, 1]]
    first, second = first[crosses], second[crosses]
    share = (_NEAR - first[:, 2]) / (second[:, 2] - first[:, 2])
    return np.concatenate([corners[front], first + share[:, None] * (second - first)])


class Scan(NamedTuple):
    """One turn of a LiDAR; only beams that returned."""

    points: np.ndarray  # (P, 3) float32 in the sensor's frame, metres
    intensity: np.ndarray  # (P,) float32 in [0, 1]
    ring: np.ndarray  # (P,) int64
    solid: np.ndarray  # (P,) number of the solid that was hit


@dataclass(frozen=True)
class Lidar:
    """A turning LiDAR: rings of beams, each at the same steps of azimuth."""

    elevations: tuple[float, ...]  # of the rings, radians above the sensor's x-y plane
    columns: int  # beams of a ring
    ego_from_lidar: np.ndarray  # (4, 4)
    reach: float = 80.0  # metres
    noise: float = 0.02  # standard deviation of the measured distance, metres
    dropout: float = 0.05  # share of beams that are lost

    def scan(self, scene: Scene, world_from_lidar: np.ndarray, rng: np.random.Generator) -> Scan:
        """Measure a scene that stands still meanwhile."""
        local = self._directions()
        origins, directions = self.rays(world_from_lidar)
        hits = scene.cast_among(origins, directions, self.candidates(scene, world_from_lidar))
        # Drawn for every beam: what one beam meets does not change the others.
        distance = hits.parameter + self.noise * rng.standard_normal(len(local))
        kept = np.flatnonzero((hits.parameter < self.reach) & (rng.random(len(local)) >= self.dropout))
        points = (distance[kept, None] * local[kept]).astype(np.float32)
        return Scan(points, self._intensity(hits, directions)[kept], kept // self.columns, hits.solid[kept])

    def rays(self, world_from_lidar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Origins and unit directions (rings * columns, 3), ring by ring from the first."""
        directions = self._directions() @ world_from_lidar[:3, :3].T
        return np.broadcast_to(world_from_lidar[:3, 3], directions.shape), directions

    def candidates(self, scene: Scene, world_from_lidar: np.ndarray) -> list[np.ndarray]:
        """For each solid, the numbers of the beams that can meet it."""
        beams = np.arange(len(self.elevations) * self.columns).reshape(-1, self.columns)
        elevations = np.asarray(self.elevations)
        found = []
        for solid in scene.solids:
            corners = (solid.corners() - world_from_lidar[:3, 3]) @ world_from_lidar[:3, :3]
            centre = corners.mean(0)
            distance, radius = np.linalg.norm(centre), np.linalg.norm(corners[0] - centre)
            if distance <= radius * 1.001:
                found.append(beams.reshape(-1))
                continue
            spread = np.arcsin(radius / distance)
            rows = np.abs(elevations - np.arcsin(centre[2] / distance)) <= spread + 1e-9
            found.append(beams[rows][:, self._columns_within(corners)].reshape(-1))
        return found

    def _directions(self) -> np.ndarray:
        elevation = np.asarray(self.elevations)[:, None]
        azimuth = (np.arange(self.columns) + 0.5) / self.columns * 2 * np.pi - np.pi
        parts = [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation) + 0 * azimuth,
        ]
        return np.stack(parts, -1).reshape(-1, 3)

    def _columns_within(self, corners: np.ndarray) -> np.ndarray:
        azimuth = np.arctan2(corners[:, 1], corners[:, 0])
        middle = np.arctan2(*corners.mean(0)[[1, 0]])
        offsets = np.angle(np.exp(1j * (azimuth - middle)))
        if np.ptp(offsets) >= np.pi:  # it lies around or above the sensor
            return np.arange(self.columns)
        low, high = (middle + bound + np.pi for bound in (offsets.min(), offsets.max()))
        step = 2 * np.pi / self.columns
        return np.arange(int(np.floor(low / step)) - 1, int(np.ceil(high / step)) + 1) % self.columns

    def _intensity(self, hits: Hits, directions: np.ndarray) -> np.ndarray:
        """Brightness of the surface times the cosine at which the beam meets it."""
        facing = np.abs((hits.normals * directions).sum(-1))
        return np.clip(hits.colours.mean(-1) * (0.3 + 0.7 * facing), 0, 1).astype(np.float32)
