"""How ships, planes, vehicles and tanks stand in one zone of an aerial scene.

A layout is a function `(rng, zone)` that fills the zone with ground, objects and trees. Inside a zone coordinates
(a, b) run along its length and width, with the origin in its middle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from perception.datasets.synthetic import textures
from perception.datasets.synthetic.aerial import AerialObject, Palette, Patch, Point, Tree
from perception.datasets.synthetic.textures import Colour

UPRIGHT = ("storage-tank", "roundabout")
"""Classes that look the same from every side: their boxes are not turned."""


@dataclass
class Zone:
    """A rectangle of the scene, turned by `angle` around `centre`, and what is in it so far, from bottom to top."""

    centre: Point
    angle: float
    length: float
    width: float
    palettes: dict[str, Palette]
    patches: list[Patch] = field(default_factory=list)
    objects: list[AerialObject] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)

    def quarter_turned(self, times: int) -> Zone:
        """The same empty rectangle with its coordinates turned by `times` right angles."""
        sides = (self.length, self.width) if times % 2 == 0 else (self.width, self.length)
        return Zone(self.centre, self.angle + times * np.pi / 2, *sides, self.palettes)

    def at(self, a: float, b: float) -> Point:
        """From the zone's coordinates to pixels."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return float(self.centre[0] + a * cos - b * sin), float(self.centre[1] + a * sin + b * cos)

    def corners(self) -> tuple[Point, ...]:
        """The zone's corners in pixels."""
        return self._rectangle(-self.length / 2, -self.width / 2, self.length / 2, self.width / 2)

    def cover(self, rng: np.random.Generator, material: str) -> None:
        """Make the whole zone of one material."""
        self.patches.append(Patch(self.corners(), material, _seed(rng)))

    def pave(self, rng: np.random.Generator, material: str, a0: float, b0: float, a1: float, b1: float) -> None:
        """Lay a rectangle of ground from (a0, b0) to (a1, b1)."""
        self.patches.append(Patch(self._rectangle(a0, b0, a1, b1), material, _seed(rng)))

    def put(self, rng: np.random.Generator, kind: str, a: float, b: float, size: Point, turn: float, on: str) -> None:
        """Place an object of `size` (length, width), turned by `turn` in the zone, on ground of the material `on`."""
        colour, accent = _colours(rng, kind, self.palettes[on], self.palettes["land"])
        angle = 0.0 if kind in UPRIGHT else self.angle + turn
        length, width = (float(side) for side in size)
        item = AerialObject(kind, self.at(a, b), length, width, float(angle), colour, accent, _seed(rng))
        self.objects.append(item)

    def plant(self, rng: np.random.Generator, a: float, b: float) -> None:
        """Place a tree."""
        colour = textures.from_hsv(rng.uniform(0.22, 0.36), rng.uniform(0.5, 0.8), rng.uniform(0.2, 0.36))
        self.trees.append(Tree(self.at(a, b), float(rng.uniform(5, 10)), colour, _seed(rng)))

    def _rectangle(self, a0: float, b0: float, a1: float, b1: float) -> tuple[Point, ...]:
        return self.at(a0, b0), self.at(a1, b0), self.at(a1, b1), self.at(a0, b1)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**32))


def _colours(rng: np.random.Generator, kind: str, below: Palette, land: Palette) -> tuple[Colour, Colour]:
    """Of an object's body and of its accents."""
    if kind == "roundabout":
        grey = rng.uniform(0.2, 0.3)
        return (grey, grey, grey + 0.02), land[2]
    if kind == "harbor":
        value = rng.uniform(0.6, 0.75)
        return (value, value * 0.96, value * 0.88), textures.vivid_colour(rng)
    if kind in ("plane", "storage-tank"):
        value = rng.uniform(0.82, 0.98)
        return (value, value, value * rng.uniform(0.93, 1)), textures.vivid_colour(rng)
    candidates = [textures.vivid_colour(rng), textures.vivid_colour(rng), (0.95, 0.95, 0.95), (0.07, 0.07, 0.09)]
    distance = textures.colour_distance(np.array(candidates), np.array(below)).min(axis=1)
    clear = np.flatnonzero(distance >= min(35.0, distance.max()))
    return candidates[int(rng.choice(clear))], textures.vivid_colour(rng)


def _row(start: float, stop: float, pitch: float) -> Iterator[float]:
    """Centres of as many places of width `pitch` as fit between start and stop, in the middle of the room."""
    count = max(int((stop - start) / pitch), 0)
    first = (start + stop - (count - 1) * pitch) / 2
    return (first + k * pitch for k in range(count))


def _jitter(rng: np.random.Generator, size: Point, share: float = 0.06) -> Point:
    return size[0] * rng.uniform(1 - share, 1), size[1] * rng.uniform(1 - share, 1)


# ----------------------------------------------------------------------------------------------------------- layouts


def marina(rng: np.random.Generator, zone: Zone) -> None:
    """Piers that stick out of a quay, with ships moored side by side along both sides of each."""
    quay = rng.uniform(16, 26)
    low, high = -zone.width / 2 + quay, zone.width / 2
    zone.cover(rng, "water")
    zone.pave(rng, "concrete", -zone.length / 2, -zone.width / 2, zone.length / 2, low)
    ship = (rng.uniform(26, 40), rng.uniform(7, 11))
    pier = (min(high - low - 14, rng.uniform(60, 90)), rng.uniform(9, 13))
    spacing = pier[1] + 2 * ship[0] + rng.uniform(16, 26)
    piers = list(_row(-zone.length / 2, zone.length / 2, spacing)) or [0.0]
    for a in piers:
        zone.put(rng, "harbor", a, low + pier[0] / 2, pier, np.pi / 2, "water")
        for side in (-1, 1):
            _moor(rng, zone, ship, a + side * pier[1] / 2, side, low + 3, low + pier[0])
    _add_dinghies(rng, zone, low + pier[0] + 8, high - 6)


def _moor(rng: np.random.Generator, zone: Zone, ship: Point, edge: float, side: int, start: float, stop: float) -> None:
    """Ships side by side, at right angles to a pier whose edge is at `edge`, its water in the direction `side`."""
    for b in _row(start, stop, ship[1] + rng.uniform(2, 4)):
        if rng.uniform() < 0.8:
            size = _jitter(rng, ship)
            turn = (0 if rng.uniform() < 0.5 else np.pi) + rng.normal(0, 0.03)
            zone.put(rng, "ship", edge + side * (2 + size[0] / 2), b, size, turn, "water")


def _add_dinghies(rng: np.random.Generator, zone: Zone, low: float, high: float) -> None:
    """Boats so small that they count as difficult, between b = low and high where there is room."""
    for _ in range(rng.integers(0, 3) if high > low else 0):
        a, b = rng.uniform(-zone.length / 2 + 6, zone.length / 2 - 6), rng.uniform(low, high)
        size = (rng.uniform(8, 11), rng.uniform(3.5, 4.5))
        ships = [item for item in zone.objects if item.kind == "ship"]
        if all(np.hypot(*np.subtract(zone.at(a, b), item.centre)) > (item.length + size[0]) / 2 for item in ships):
            zone.put(rng, "ship", a, b, size, rng.uniform(0, 2 * np.pi), "water")


def quayside(rng: np.random.Generator, zone: Zone) -> None:
    """Larger ships at a quay, side by side with the bow or the stern to it, and lorries on it."""
    quay = rng.uniform(28, 40)
    low, high = -zone.width / 2 + quay, zone.width / 2
    zone.cover(rng, "water")
    zone.pave(rng, "concrete", -zone.length / 2, -zone.width / 2, zone.length / 2, low)
    zone.pave(rng, "paint", -zone.length / 2, low - 4, zone.length / 2, low - 2.5)
    ship = (min(rng.uniform(44, 80), high - low - 8), rng.uniform(12, 18))
    for a in _row(-zone.length / 2 + 4, zone.length / 2 - 4, ship[1] + rng.uniform(3, 6)):
        if rng.uniform() < 0.8:
            size = _jitter(rng, ship, 0.15)
            turn = rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.03)
            zone.put(rng, "ship", a, low + 3 + size[0] / 2, size, turn, "water")
    for a in _row(-zone.length / 2 + 6, zone.length / 2 - 6, rng.uniform(48, 70)):
        lorry = (rng.uniform(30, 38), rng.uniform(9, 11))
        zone.put(rng, "large-vehicle", a, low - quay / 2, lorry, rng.choice([0, np.pi]), "concrete")


def roadstead(rng: np.random.Generator, zone: Zone) -> None:
    """Open water with ships under way or at anchor in all directions."""
    zone.cover(rng, "water")
    taken: list[tuple[float, float, float]] = []
    for _ in range(round(zone.length * zone.width / 75**2)):
        length = rng.uniform(24, 72)
        for _ in range(10):
            a, b = ((rng.uniform() - 0.5) * max(side - length, 0) for side in (zone.length, zone.width))
            if all(np.hypot(a - x, b - y) > (length + other) / 2 for x, y, other in taken):
                taken.append((a, b, length))
                size = (length, length / rng.uniform(3, 4.5))
                zone.put(rng, "ship", a, b, size, rng.uniform(0, 2 * np.pi), "water")
                break
    _add_dinghies(rng, zone, -zone.width / 2 + 6, zone.width / 2 - 6)


def apron(rng: np.random.Generator, zone: Zone) -> None:
    """Planes in rows, turned alike, with service vehicles between them."""
    zone.cover(rng, "concrete")
    span = rng.uniform(38, 62)
    depth = span * rng.uniform(0.95, 1.15)
    turn = rng.choice([-1, 1]) * np.pi / 2 + rng.uniform(-0.5, 0.5)
    room = 0.92 * (span + depth) / 2 + rng.uniform(6, 12)
    start, stop = -zone.length / 2 + 6, zone.length / 2 - 6
    for b in _row(-zone.width / 2, zone.width / 2 - 8, room + 14):
        zone.pave(rng, "paint", -zone.length / 2, b - 1, zone.length / 2, b + 1)
        for a in _row(start, stop, room):
            if rng.uniform() < 0.85:
                zone.put(rng, "plane", a, b, _jitter(rng, (depth, span)), turn + rng.normal(0, 0.04), "concrete")
        for a in _row(start, stop, room):
            if rng.uniform() < 0.4:
                vehicle = (rng.uniform(15, 18), rng.uniform(7, 8))
                zone.put(rng, "small-vehicle", a, b + (room + 14) / 2, vehicle, rng.choice([0, np.pi]), "concrete")


def car_park(rng: np.random.Generator, zone: Zone) -> None:
    """Rows of cars, or of lorries, side by side between painted lines, with trees that hide some of them."""
    zone.cover(rng, "land")
    zone.pave(rng, "asphalt", -zone.length / 2 + 6, -zone.width / 2 + 6, zone.length / 2 - 6, zone.width / 2 - 6)
    filled = rng.uniform(0.5, 0.85)
    b, end = -zone.width / 2 + 10, zone.width / 2 - 10
    while b < end:
        lorries = rng.uniform() < 0.4
        kind, vehicle = (
            ("large-vehicle", (rng.uniform(32, 42), rng.uniform(10, 12)))
            if lorries
            else ("small-vehicle", (rng.uniform(17, 21), rng.uniform(8, 9.5)))
        )
        pitch, depth = vehicle[1] + rng.uniform(3, 4.5), vehicle[0] + 4
        if b + depth > end:
            break
        for a in _row(-zone.length / 2 + 8, zone.length / 2 - 8, pitch):
            zone.pave(rng, "paint", a - pitch / 2 - 0.5, b, a - pitch / 2 + 0.5, b + depth)
            if rng.uniform() < filled:
                turn = rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.03)
                zone.put(rng, kind, a, b + depth / 2, _jitter(rng, vehicle), turn, "asphalt")
        b += depth + (2 if rng.uniform() < 0.4 else 18)
    for _ in range(rng.integers(1, 5)):
        zone.plant(rng, *(rng.uniform(-0.5, 0.5) * side for side in (zone.length, zone.width)))


def tank_farm(rng: np.random.Generator, zone: Zone) -> None:
    """Round tanks in rows on pads of concrete."""
    zone.cover(rng, "land")
    diameter = rng.uniform(22, 48)
    pitch = diameter + rng.uniform(8, 16)
    for b in _row(-zone.width / 2 + 4, zone.width / 2 - 4, pitch):
        for a in _row(-zone.length / 2 + 4, zone.length / 2 - 4, pitch):
            if rng.uniform() < 0.8:
                pad = 0.5 * pitch - 2
                zone.pave(rng, "concrete", a - pad, b - pad, a + pad, b + pad)
                size = diameter * rng.uniform(0.85, 1)
                zone.put(rng, "storage-tank", a, b, (size, size), 0.0, "concrete")
    for _ in range(rng.integers(0, 4)):
        zone.plant(rng, *(rng.uniform(-0.5, 0.5) * side for side in (zone.length, zone.width)))


def crossing(rng: np.random.Generator, zone: Zone) -> None:
    """A roundabout where two roads meet, with traffic on them and trees beside them."""
    zone.cover(rng, "land")
    road, diameter = rng.uniform(24, 30), rng.uniform(52, 84)
    half_length, half_width = zone.length / 2, zone.width / 2
    zone.pave(rng, "asphalt", -half_length, -road / 2, half_length, road / 2)
    zone.pave(rng, "asphalt", -road / 2, -half_width, road / 2, half_width)
    zone.put(rng, "roundabout", 0.0, 0.0, (diameter, diameter), 0.0, "asphalt")
    for end, turn in ((half_length, 0.0), (half_width, np.pi / 2), (half_length, np.pi), (half_width, -np.pi / 2)):
        along = np.array([np.cos(turn), np.sin(turn)])
        across = np.array([-along[1], along[0]])
        zone.pave(rng, "paint", *_box(along * diameter / 2, along * end, across * 0.6))
        for lane in (-1, 1):
            for place in _row(diameter / 2 + 6, end - 2, 44):
                if rng.uniform() < 0.6:
                    heading = turn + (np.pi if lane > 0 else 0)
                    _add_traffic(rng, zone, along * place + across * lane * road / 4, heading)
    for _ in range(rng.integers(4, 12)):
        a, b = (rng.uniform(-0.5, 0.5) * side for side in (zone.length, zone.width))
        if np.hypot(a, b) > diameter / 2 + 10 and min(abs(a), abs(b)) > road / 2 - 2:
            zone.plant(rng, a, b)


def _add_traffic(rng: np.random.Generator, zone: Zone, place: np.ndarray, heading: float) -> None:
    if rng.uniform() < 0.35:
        kind, size = "large-vehicle", (rng.uniform(28, 36), rng.uniform(9, 10))
    else:
        kind, size = "small-vehicle", (rng.uniform(16, 20), rng.uniform(7, 9))
    zone.put(rng, kind, *place, size, heading, "asphalt")


def _box(start: np.ndarray, end: np.ndarray, half_width: np.ndarray) -> tuple[float, float, float, float]:
    points = np.array([start - half_width, end + half_width])
    return (*points.min(axis=0), *points.max(axis=0))


LAYOUTS: dict[str, Callable[[np.random.Generator, Zone], None]] = {
    layout.__name__: layout for layout in (marina, apron, car_park, tank_farm, quayside, crossing, roadstead)
}
"""Kinds of layout by name."""
