"""Rivers, and what is built along and across them: bridges, roads, jetties, breakwaters.

Coordinates are pixels of the scene. Everything here is about where things are; `bridges` paints them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from perception.datasets.synthetic import textures
from perception.datasets.synthetic.aerial import Point
from perception.datasets.synthetic.strips import Strip

_GRID = 4  # pixels of the scene a cell of the map of distances to the water
_CLEARANCE = 14.0  # pixels between a road and the water beside it
_APPROACH = 30.0  # pixels of land that a bridge needs behind each end
_STEP = 40.0  # pixels of a road between bends
_TURNS = (0.0, 0.25, -0.25, 0.5, -0.5, 0.8, -0.8, 1.1, -1.1)  # radians by which a road avoids water


@dataclass(frozen=True)
class River:
    """Water between two banks; `middle` is its centre line, `width` what it has on average."""

    middle: tuple[Point, ...]
    banks: tuple[Point, ...]
    width: float


@dataclass(frozen=True)
class Road:
    """A line of some width."""

    points: tuple[Point, ...]
    width: int


def sample_river(
    rng: np.random.Generator, height: int, width: int, *, across: float, bend: float, through: Point
) -> River:
    """A river that crosses the scene.

    Args:
        across: its width in pixels.
        bend: amplitude of its bends in pixels.
        through: a point that it passes near.
    """
    reach = float(np.hypot(height, width)) + 2 * across
    step = float(np.clip(across / 12, 4, 24))
    along = np.arange(-reach, reach + step, step)
    # Bends so long that the bank inside of one does not cross itself.
    wavelength = max(6 * across, 14 * bend, 60.0)
    aside = bend * np.sin(2 * np.pi * (along / wavelength + rng.uniform()))
    aside += 0.4 * bend * np.sin(2 * np.pi * (along / (0.57 * wavelength) + rng.uniform()))
    slope = np.arctan2(np.gradient(aside, step), 1.0)
    sides = []
    for sign in (-1, 1):
        knots = rng.uniform(0.9, 1.1, size=int(2 * reach / max(across, 50.0)) + 3)
        half = across / 2 * np.interp(np.linspace(0, len(knots) - 1, len(along)), np.arange(len(knots)), knots)
        half += rng.uniform(-1, 1, len(along)) * min(0.02 * across, 2.0)
        sides.append(np.stack([along - sign * half * np.sin(slope), aside + sign * half * np.cos(slope)], axis=1))
    angle = rng.uniform(0, np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]])

    def placed(points: np.ndarray) -> tuple[Point, ...]:
        return tuple((float(x), float(y)) for x, y in points @ turn + np.asarray(through))

    return River(placed(np.stack([along, aside], axis=1)), placed(np.concatenate([sides[0], sides[1][::-1]])), across)


class Waterside:
    """A scene's land and water, on which things are built one after the other.

    Args:
        rng: all draws come from here.
        rivers: the water.
        shortest: no bridge is shorter, in pixels.

    Attributes:
        bridges, jetties, roads: what there is so far.
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int, rivers: list[River], shortest: float) -> None:
        self._rng, self._height, self._width, self._shortest = rng, height, width, shortest
        self.rivers = rivers
        self.water = shapely.union_all([shapely.Polygon(river.banks).buffer(0) for river in rivers])
        shapely.prepare(self.water)
        self._distances = self._distance_map()
        self._taken: list[BaseGeometry] = []
        self.bridges: list[Strip] = []
        self.jetties: list[Strip] = []
        self.roads: list[Road] = []

    def bridge(self, river: River) -> bool:
        """Tries to build a bridge over a river, with a road at both ends; whether there was room."""
        rng = self._rng
        station = self._station(river)
        if station is None:
            return False
        middle, heading = station
        angle = heading + np.pi / 2 + rng.uniform(-0.35, 0.35)
        direction = np.array([np.cos(angle), np.sin(angle)])
        span = self._span(middle, direction)
        if span is None:
            return False
        start, end = span
        chord = end - start
        width = self._deck_width(chord)
        # Both ends rest on land, also where the bank is oblique.
        rest = float(np.clip(0.02 * chord, 3, 24)) + 0.5 * width * rng.uniform(0.2, 0.6)
        strip = self._strip(middle + direction * (start + end) / 2, chord + 2 * rest, width, angle)
        if strip.length < self._shortest or not self._fits(strip) or not self._has_land_at_its_ends(strip):
            return False
        self._taken.append(shapely.Polygon(strip.corners()).buffer(max(48.0, 1.5 * width)))
        self.bridges.append(strip)
        road_width = max(3, round(width * rng.uniform(0.5, 0.75)))
        for sign in (-1, 1):
            # The road begins on the deck, which is painted over it, so that no gap is left.
            begin = (strip.at(sign * (strip.length / 2 + along), 0.0) for along in (-2, _APPROACH))
            self._drive(tuple(begin), angle + (sign < 0) * np.pi, road_width)
        return True

    def jetty(self, river: River) -> bool:
        """Tries to build what looks like the beginning of a bridge, but ends in the water."""
        rng = self._rng
        station = self._station(river)
        if station is None:
            return False
        middle, heading = station
        angle = heading + np.pi / 2 * rng.choice([-1, 1]) + rng.uniform(-0.3, 0.3)
        direction = np.array([np.cos(angle), np.sin(angle)])
        span = self._span(middle, direction)
        if span is None:
            return False
        chord = span[1] - span[0]
        length = chord * rng.uniform(0.15, 0.7)
        rest = rng.uniform(4, 20)
        strip = self._strip(
            middle + direction * (span[0] - rest + (length + rest) / 2), length + rest, self._deck_width(chord), angle
        )
        ahead = shapely.LineString([strip.at(strip.length / 2 + far, 0.0) for far in (0.0, max(12.0, 0.2 * chord))])
        if chord < 60 or not self._fits(strip) or not self.water.contains(ahead):
            return False
        self._taken.append(shapely.Polygon(strip.corners()).buffer(24))
        self.jetties.append(strip)
        return True

    def breakwater(self, river: River) -> bool:
        """Tries to build a strip that has water all around it."""
        station = self._station(river)
        if station is None:
            return False
        middle, heading = station
        length = river.width * self._rng.uniform(0.15, 0.5)
        strip = self._strip(middle, length, self._deck_width(length), heading + self._rng.uniform(0, np.pi))
        polygon = shapely.Polygon(strip.corners())
        if length < 12 or not self._fits(strip) or not self.water.contains(polygon.buffer(10)):
            return False
        self._taken.append(polygon.buffer(24))
        self.jetties.append(strip)
        return True

    def track(self) -> bool:
        """Tries to lay a strip of the same kind on land: nothing flows below it."""
        rng = self._rng
        middle = rng.uniform(0, 1, 2) * (self._width, self._height)
        length = float(np.exp(rng.uniform(np.log(40), np.log(max(60.0, 0.4 * min(self._height, self._width))))))
        strip = self._strip(middle, length, self._deck_width(length), rng.uniform(0, np.pi))
        if not self._fits(strip) or self.water.intersects(shapely.Polygon(strip.corners()).buffer(_CLEARANCE)):
            return False
        self._taken.append(shapely.Polygon(strip.corners()).buffer(12))
        self.jetties.append(strip)
        return True

    def road_from(self, point: Point) -> None:
        """Lays a road through a point, if that is on land."""
        if self.distance(point) > 2 * _CLEARANCE:
            heading, width = self._rng.uniform(0, 2 * np.pi), int(self._rng.integers(4, 15))
            for turned in (0.0, np.pi):
                self._drive((point,), heading + turned, width)

    def bank_road(self, river: River) -> None:
        """Lays a road beside a bank, where there is room."""
        rng = self._rng
        banks = np.array(river.banks)
        half = len(banks) // 2
        bank = banks[:half] if rng.random() < 0.5 else banks[half:]
        middle = np.array(river.middle)[:: 1 if bank is banks[:half] else -1]
        outward = bank - middle[: len(bank)]
        outward /= np.linalg.norm(outward, axis=1, keepdims=True) + 1e-9
        line = bank + outward * rng.uniform(24, 60)
        width, points = int(rng.integers(4, 12)), []
        for point in line[:: max(1, round(_STEP / (np.linalg.norm(line[1] - line[0]) + 1e-9)))]:
            dry = self.distance(tuple(point)) > _CLEARANCE and not self.water.intersects(
                shapely.LineString([*points[-1:], point, point])
            )
            if self._inside(point, -60.0) and dry:
                points.append((float(point[0]), float(point[1])))
            elif len(points) > 3:
                break
            else:
                points = []
        if len(points) > 3:
            self.roads.append(Road(tuple(points), width))

    def distance(self, point: Point) -> float:
        """Pixels to the nearest water, about; beyond the scene as at its border."""
        rows, columns = self._distances.shape
        column = int(np.clip(point[0] / _GRID, 0, columns - 1))
        row = int(np.clip(point[1] / _GRID, 0, rows - 1))
        return float(self._distances[row, column]) * _GRID

    def floats(self, corners: np.ndarray) -> bool:
        """Whether a rectangle `[4, 2]` lies on water alone, and on nothing that was built there."""
        polygon = shapely.Polygon(corners)
        return bool(self.water.contains(polygon)) and not shapely.intersects(self._taken, polygon).any()

    def free(self, point: Point, radius: float) -> bool:
        """Whether nothing that was built over water or land is so near."""
        return not shapely.dwithin(self._taken, shapely.Point(point), radius).any()

    # ------------------------------------------------------------------------------------------------------- where

    def _station(self, river: River) -> tuple[np.ndarray, float] | None:
        """A point on the middle of a river inside the scene, and where the river goes there."""
        middle = np.array(river.middle)
        inside = np.flatnonzero(((middle >= 0) & (middle < (self._width, self._height)))[1:-1].all(axis=1)) + 1
        if not len(inside):
            return None
        index = inside[self._rng.integers(len(inside))]
        dx, dy = middle[index + 1] - middle[index - 1]
        return middle[index], float(np.arctan2(dy, dx))

    def _span(self, middle: np.ndarray, direction: np.ndarray) -> tuple[float, float] | None:
        """Where the water below a line begins and ends, in pixels from its middle."""
        reach = float(np.hypot(self._height, self._width))
        line = shapely.LineString([middle - reach * direction, middle + reach * direction])
        wet = shapely.get_parts(shapely.intersection(line, self.water))
        for part in wet:
            ends = [float((np.array(point) - middle) @ direction) for point in (part.coords[0], part.coords[-1])]
            if min(ends) < 0 < max(ends):
                return min(ends), max(ends)
        return None

    def _deck_width(self, length: float) -> float:
        """Longer bridges are wider, but far less than in proportion."""
        return float(np.clip(self._rng.uniform(0.75, 1.35) * np.sqrt(length), 6, 0.5 * max(length, 14)))

    def _strip(self, centre: np.ndarray, length: float, width: float, angle: float) -> Strip:
        rng = self._rng
        grey = rng.uniform(0.34, 0.72)
        colour = textures.from_hsv(rng.uniform(0.02, 0.16), rng.uniform(0.0, 0.16), grey)
        return Strip(
            centre=(float(centre[0]), float(centre[1])),
            length=float(length),
            width=float(width),
            angle=float(angle),
            colour=colour,
            rim=textures.from_hsv(0.1, 0.05, float(np.clip(grey + rng.choice([-0.2, 0.2]), 0.15, 0.92))),
            height=float(np.clip(0.18 * width, 1, 9)),
            lanes=bool(width > 9 and rng.random() < 0.6),
            bays=float(rng.uniform(12, 40)) if rng.random() < 0.4 else 0.0,
            texture_seed=int(rng.integers(2**32)),
        )

    def _fits(self, strip: Strip) -> bool:
        """Whether all of a strip is in the scene, and nothing else is there."""
        return all(self._inside(corner, 4.0) for corner in strip.corners()) and self._clear(strip)

    def _clear(self, strip: Strip) -> bool:
        polygon = shapely.Polygon(strip.corners())
        return not shapely.intersects(self._taken, polygon).any()

    def _has_land_at_its_ends(self, strip: Strip) -> bool:
        half_length, half_width = strip.length / 2, strip.width / 2
        for sign in (-1, 1):
            places = ((0, -half_width), (_APPROACH, -half_width), (_APPROACH, half_width), (0, half_width))
            approach = [strip.at(sign * (half_length + along), across) for along, across in places]
            if self.water.intersects(shapely.Polygon(approach)):
                return False
        return True

    def _inside(self, point: np.ndarray, margin: float) -> bool:
        x, y = point
        return bool(margin <= x < self._width - margin and margin <= y < self._height - margin)

    def _drive(self, begin: tuple[Point, ...], heading: float, width: int) -> None:
        """A road from its first points on, that bends and keeps away from water; it ends where it cannot."""
        rng, points = self._rng, list(begin)
        longest = int(1.2 * max(self._height, self._width) / _STEP)
        for step in range(longest):
            wanted = heading + (0.0 if step < 2 else rng.normal(0, 0.1))
            ahead = (_Heading(points[-1], wanted + turn) for turn in _TURNS)
            chosen = next((one for one in ahead if self._passable(one, width)), None)
            if chosen is None:
                break
            heading = chosen.angle
            points.append(chosen.after(_STEP))
            if not self._inside(np.array(points[-1]), -2 * _STEP):
                break
        if len(points) > 1:
            self.roads.append(Road(tuple(points), width))

    def _passable(self, ahead: _Heading, width: int) -> bool:
        return all(self.distance(ahead.after(_STEP * far)) > _CLEARANCE + width / 2 for far in (0.5, 1.0, 1.5))

    def _distance_map(self) -> np.ndarray:
        wet = np.zeros((-(-self._height // _GRID), -(-self._width // _GRID)), np.uint8)
        for river in self.rivers:
            cv2.fillPoly(wet, [np.round(np.array(river.banks) / _GRID).astype(np.int32)], 1)
        return cv2.distanceTransform(1 - wet, cv2.DIST_L2, 5)


@dataclass(frozen=True)
class _Heading:
    """A direction from a point."""

    start: Point
    angle: float

    def after(self, pixels: float) -> Point:
        """The point so far ahead."""
        return (
            float(self.start[0] + pixels * np.cos(self.angle)),
            float(self.start[1] + pixels * np.sin(self.angle)),
        )
