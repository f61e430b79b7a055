"""Exact ray casting of textured solids: where a ray meets the scene, which solid, the surface's normal and its colour.

Arrays are float64; rays are (N, 3) origins and directions of any length, and ray parameters are in units of the
direction. Solids do not move: what does is placed anew for each moment (`motion`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

Colour = tuple[float, float, float]

AMBIENT, DIFFUSE, GLOSS, SHININESS = 0.5, 0.5, 0.12, 10.0
RAYS_AT_ONCE = 2**15  # temporary arrays of a batch fit the processor's cache, and do not grow with the image


@dataclass(frozen=True)
class Texture:
    """Two colours mixed by a pattern over a solid's own coordinates; `period` in scene units."""

    kind: str  # a key of PATTERNS
    first: Colour
    second: Colour
    period: float

    def colours(self, local: np.ndarray) -> np.ndarray:
        """RGB (N, 3) at points (N, 3) in the solid's frame."""
        share = PATTERNS[self.kind](local / self.period)[:, None]
        return np.asarray(self.first) * (1 - share) + np.asarray(self.second) * share


# Patterns change over a tenth of a period and not at once: a voxel grid can then represent them.
def _wave(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(4 * np.sin(2 * np.pi * x))


def _zone_plate(right: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Rings that become finer outwards: at a distance r from the middle there are r of them in a unit."""
    return 0.5 + 0.5 * np.cos(np.pi * (right**2 + up**2))


def _mosaic(right: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Square cells that are on or off without order."""
    cell = np.floor(right).astype(np.int64) * 73_856_093 ^ np.floor(up).astype(np.int64) * 19_349_663
    return ((cell ^ cell >> 7) % 5 < 2).astype(np.float64)


PATTERNS = {
    "plain": lambda p: np.zeros(len(p)),
    "stripes": lambda p: _wave(p[:, 2]),
    "rings": lambda p: _wave(np.hypot(p[:, 0], p[:, 1])),
    "checks": lambda p: 0.5 + 0.5 * (2 * _wave(p[:, 0]) - 1) * (2 * _wave(p[:, 1]) - 1),
    "gradient": lambda p: np.clip(0.5 + 0.5 * p[:, 2], 0, 1),
    # Of upright faces, over the solid's x and height.
    "zone plate": lambda p: _zone_plate(p[:, 0], p[:, 2]),
    "mosaic": lambda p: _mosaic(p[:, 0], p[:, 2]),
    "hatching": lambda p: _wave(p[:, 0] + p[:, 2]),
    "bars": lambda p: _wave(p[:, 0]),
}


@dataclass(frozen=True)
class Sphere:
    """A ball around `centre`."""

    centre: Colour
    radius: float
    texture: Texture

    def intersect(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Parameter (N,) at which rays that start outside enter, `inf` for those that miss."""
        offset = origins - self.centre
        a = (directions**2).sum(-1)
        half_b = (offset * directions).sum(-1)
        discriminant = half_b**2 - a * ((offset**2).sum(-1) - self.radius**2)
        entry = (-half_b - np.sqrt(np.maximum(discriminant, 0))) / a
        return np.where((discriminant > 0) & (entry > 0), entry, np.inf)

    def normals(self, points: np.ndarray) -> np.ndarray:
        """Outward unit normals (N, 3) at surface points."""
        return (points - self.centre) / self.radius

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """Distance (N,) to the surface, negative inside."""
        return np.linalg.norm(points - self.centre, axis=-1) - self.radius

    def local(self, points: np.ndarray) -> np.ndarray:
        """Points in the solid's frame."""
        return points - self.centre

    def bounds(self) -> np.ndarray:
        """(2, 3) corners of the box around it."""
        centre = np.asarray(self.centre)
        return np.stack([centre - self.radius, centre + self.radius])

    def corners(self) -> np.ndarray:
        """(8, 3) of a box that holds it, in the order of :meth:`Box.corners`."""
        return np.asarray(self.centre) + self.radius * _CORNERS

    def placed(self, place: Sequence[float], angle: float) -> Sphere:
        """The same, given in the frame of a body that stands at a place (3,), turned by an angle."""
        return replace(self, centre=_place(self.centre, place, angle))


@dataclass(frozen=True)
class Box:
    """A cuboid turned by `angle` radians about the vertical axis."""

    centre: Colour
    half: Colour
    angle: float
    texture: Texture

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3), from the solid's frame to the scene's."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])

    def local(self, points: np.ndarray) -> np.ndarray:
        """Points in the solid's frame."""
        return (points - self.centre) @ self.rotation

    def intersect(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Parameter (N,) at which rays that start outside enter, `inf` for those that miss."""
        origin, direction = self.local(origins), directions @ self.rotation
        direction = np.where(np.abs(direction) < 1e-12, 1e-12, direction)
        one, two = (-np.asarray(self.half) - origin) / direction, (np.asarray(self.half) - origin) / direction
        near, far = np.minimum(one, two).T, np.maximum(one, two).T
        # Three columns by themselves: reductions over so short an axis take three times as long.
        entry, leave = np.maximum(np.maximum(*near[:2]), near[2]), np.minimum(np.minimum(*far[:2]), far[2])
        return np.where((leave > entry) & (entry > 0), entry, np.inf)

    def normals(self, points: np.ndarray) -> np.ndarray:
        """Outward unit normals (N, 3) at surface points."""
        local = self.local(points)
        axis = (np.abs(local) - self.half).argmax(-1)
        normal = np.zeros_like(local)
        rows = np.arange(len(local))
        normal[rows, axis] = np.sign(local[rows, axis])
        return normal @ self.rotation.T

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """Distance (N,) to the surface, negative inside."""
        beyond = np.abs(self.local(points)) - self.half
        return np.linalg.norm(np.maximum(beyond, 0), axis=-1) + np.minimum(beyond.max(-1), 0)

    def bounds(self) -> np.ndarray:
        """(2, 3) corners of the axis-parallel box around it."""
        reach = np.abs(self.rotation) @ np.asarray(self.half)
        return np.stack([np.asarray(self.centre) - reach, np.asarray(self.centre) + reach])

    def corners(self) -> np.ndarray:
        """(8, 3); `CORNER_EDGES` says which are neighbours."""
        return np.asarray(self.centre) + (_CORNERS * self.half) @ self.rotation.T

    def placed(self, place: Sequence[float], angle: float) -> Box:
        """The same, given in the frame of a body that stands at a place (3,), turned by an angle."""
        return replace(self, centre=_place(self.centre, place, angle), angle=self.angle + angle)


_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
CORNER_EDGES = np.array([(a, b) for a in range(8) for b in range(a) if np.abs(_CORNERS[a] - _CORNERS[b]).sum() == 2])
"""(12, 2) numbers of corners that an edge joins."""


def _place(centre: Colour, place: Sequence[float], angle: float) -> Colour:
    cos, sin = np.cos(angle), np.sin(angle)
    x, y, z = centre
    return (place[0] + cos * x - sin * y, place[1] + sin * x + cos * y, place[2] + z)


def camera_rays(
    pose: np.ndarray, size: tuple[int, int], focal: float, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rays through points of all pixels.

    Args:
        pose: (4, 4) camera-to-world, OpenGL axes.
        size: width and height in pixels.
        focal: focal length in pixels; the principal point is the image's centre.
        offsets: (S, 2) places within a pixel, right and down, in [0, 1).

    Returns:
        Origins and directions (height * width * S, 3); directions are 1 long along the viewing axis.
    """
    width, height = size
    row, column = np.mgrid[:height, :width].reshape(2, -1, 1)
    right = (column + offsets[:, 0] - width / 2) / focal  # (pixels, S)
    up = -(row + offsets[:, 1] - height / 2) / focal
    directions = np.stack([right, up, -np.ones_like(right)], -1).reshape(-1, 3) @ pose[:3, :3].T
    return np.broadcast_to(pose[:3, 3], directions.shape), directions


def pixel_places(per_side: int) -> np.ndarray:
    """Evenly spaced places (per_side ** 2, 2) within a pixel, row by row."""
    places = (np.arange(per_side) + 0.5) / per_side
    return np.stack(np.meshgrid(places, places, indexing="xy"), -1).reshape(-1, 2)


class Hits(NamedTuple):
    """What N rays meet."""

    parameter: np.ndarray  # (N,) ray parameter, inf for rays that miss everything
    normals: np.ndarray  # (N, 3) unit, 0 for misses
    colours: np.ndarray  # (N, 3) in [0, 1], 0 for misses
    solid: np.ndarray  # (N,) number of the solid in the scene, -1 for misses


@dataclass(frozen=True)
class Scene:
    """Solids under a distant light from the direction `light`."""

    solids: tuple[Sphere | Box, ...]
    light: Colour = field(default=(0.4, -0.3, 0.87))

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """First hits of rays (N, 3) that start outside all solids."""
        starts = range(0, max(len(origins), 1), RAYS_AT_ONCE)
        batches = [slice(start, start + RAYS_AT_ONCE) for start in starts]
        parts = [self._cast_batch(origins[batch], directions[batch]) for batch in batches]
        return Hits(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def cast_among(self, origins: np.ndarray, directions: np.ndarray, candidates: Sequence[np.ndarray]) -> Hits:
        """The same where it is known which rays can meet which solid.

        Args:
            origins, directions: (N, 3).
            candidates: for each solid, numbers of rays; rays that are left out of it pass through it.
        """
        parameter, nearest = np.full(len(origins), np.inf), np.full(len(origins), -1)
        for number, (solid, rays) in enumerate(zip(self.solids, candidates, strict=True)):
            if len(rays):
                entry = solid.intersect(origins[rays], directions[rays])
                nearer = entry < parameter[rays]
                parameter[rays[nearer]], nearest[rays[nearer]] = entry[nearer], number
        return self._surfaces(origins, directions, parameter, nearest)

    def silhouettes(
        self, origins: np.ndarray, directions: np.ndarray, candidates: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """For each solid, the numbers of the candidates that would meet it if it were alone."""
        return [
            rays[np.isfinite(solid.intersect(origins[rays], directions[rays]))] if len(rays) else rays
            for solid, rays in zip(self.solids, candidates, strict=True)
        ]

    def _cast_batch(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        near = self._near(origins, directions)
        return self.cast_among(origins, directions, [np.flatnonzero(rays) for rays in near])

    def _surfaces(
        self, origins: np.ndarray, directions: np.ndarray, parameter: np.ndarray, nearest: np.ndarray
    ) -> Hits:
        normals, colours = np.zeros_like(origins), np.zeros_like(origins)
        # Rays in the order of their solids: one pass over the rays, not one for each solid.
        order = np.argsort(nearest, kind="stable")
        numbers, starts = np.unique(nearest[order], return_index=True)
        for number, rays in zip(numbers, np.split(order, starts[1:])):
            if number >= 0:
                solid = self.solids[number]
                points = origins[rays] + parameter[rays, None] * directions[rays]
                normals[rays] = solid.normals(points)
                albedo = solid.texture.colours(solid.local(points))
                colours[rays] = self._shade(albedo, normals[rays], directions[rays])
        return Hits(parameter, normals, colours, nearest)

    def _near(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Which rays pass through the balls around which solids (solids, N): only these are intersected."""
        bounds = np.stack([solid.bounds() for solid in self.solids])
        centres, radii = bounds.mean(1), np.linalg.norm(bounds[:, 1] - bounds[:, 0], axis=-1) / 2
        reach = (radii[:, None] * (1 + 1e-6)) ** 2 + 1e-6
        if len(origins) and origins.strides[0] == 0:  # all from one place, as a camera's are
            offset = centres - origins[:1]
            along, distance = offset @ directions.T, (offset**2).sum(-1)[:, None]
        else:
            along = centres @ directions.T - (origins * directions).sum(-1)
            distance = (centres**2).sum(-1)[:, None] - 2 * centres @ origins.T + (origins**2).sum(-1)
        return along**2 >= (distance - reach) * (directions**2).sum(-1)

    def _shade(self, albedo: np.ndarray, normals: np.ndarray, directions: np.ndarray) -> np.ndarray:
        light = np.asarray(self.light) / np.linalg.norm(self.light)
        view = -directions / np.linalg.norm(directions, axis=-1, keepdims=True)
        half = (view + light) / np.linalg.norm(view + light, axis=-1, keepdims=True)
        # Half-Lambert: no hard edge between the lit and the dark side.
        lit = (0.5 + 0.5 * (normals @ light))[:, None] ** 2
        gloss = np.maximum((normals * half).sum(-1), 0)[:, None] ** SHININESS
        return np.clip(albedo * (AMBIENT + DIFFUSE * lit) + GLOSS * gloss, 0, 1)

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """Distance (N,) from points (N, 3) to the nearest surface, negative inside a solid."""
        return np.stack([solid.signed_distance(points) for solid in self.solids]).min(0)

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Whether points (N, 3) lie inside a solid."""
        return self.signed_distance(points) < 0

    def bounds(self) -> np.ndarray:
        """(2, 3) corners of the box around everything."""
        bounds = np.stack([solid.bounds() for solid in self.solids])
        return np.stack([bounds[:, 0].min(0), bounds[:, 1].max(0)])
