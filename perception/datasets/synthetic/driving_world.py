"""A crossing of two streets with traffic, parked vehicles, people and a work zone, and a vehicle that passes it.

The main street runs along x, the cross street along y, and they meet at the origin; traffic keeps to the right. Metres
and seconds; z is 0 on the road. The recorded vehicle's frame is x forward, y left, z up from the ground below the
middle of its rear axle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
import torch

from perception.geometry import boxes3d

from .driving_bodies import KINDS, draw_size, draw_solids
from .motion import Body, Path, scene_at
from .raycasting import Box, Colour, Sphere, Texture

KERB = 0.15  # height of the pavements
REACH = 150.0  # of the ground, to each side
ROAD, CROSS_ROAD = 10.0, 7.0  # half widths: four lanes and parking, two lanes
PAVEMENT = 4.0
MAIN_LANES, CROSS_LANES = (1.75, 5.25), (1.75,)  # distances of lanes' middles from the street's
EGO_SIZE = (4.1, 1.75, 1.6)
EGO_MIDDLE = 1.4  # of the vehicle, ahead of its rear axle
NEARBY = 20.0  # objects that every scene has are placed within this distance of the middle of the ego's way
GAP = 0.35  # metres between any two objects
ROOF, SEEN_WITHIN = 1.84, 22.0  # metres: from where each class is seen at some moment, and how near
TRIES = 30


@dataclass(frozen=True)
class Actor:
    """An object with a box.

    Attributes:
        kind: a key of `KINDS`.
        size: length, width, height.
        body: its solids and its way.
        attribute: of nuScenes, "" where its class has none.
    """

    kind: str
    size: tuple[float, float, float]
    body: Body
    attribute: str

    def box(self, time: float) -> np.ndarray:
        """(7,) x, y, z of the centre, length, width, height, yaw, as in `perception.geometry.boxes3d`."""
        x, y, heading = self.body.path.at(time)
        return np.array([x, y, self.body.height + self.size[2] / 2, *self.size, heading])


@dataclass(frozen=True)
class World:
    """What is in a scene, and how the recorded vehicle moves."""

    still: tuple[Box | Sphere, ...]
    actors: tuple[Actor, ...]
    ego: Path

    @property
    def bodies(self) -> list[Body]:
        """Of the actors, in their order."""
        return [actor.body for actor in self.actors]


def sample_scene(rng: np.random.Generator, duration: float, crowd: int) -> World:
    """Draw a scene in which nothing collides while it lasts.

    Args:
        rng: draws everything.
        duration: in seconds.
        crowd: number of vehicles, of parked ones and of people that are tried; every scene has one object at least of
            each detection class of nuScenes near the ego.
    """
    for _ in range(TRIES):
        world = _draw_world(rng, duration, crowd)
        if world is not None and _every_class_is_seen(world, duration):
            return world
    raise ValueError("there is no room for an object of each class: take another seed, fewer frames or a smaller crowd")


def _draw_world(rng: np.random.Generator, duration: float, crowd: int) -> World | None:
    ego = _draw_ego(rng, duration)
    placing = _Placing(rng, ego, duration)
    if not all(placing.place_nearby(kind) for kind in KINDS):
        return None
    placing.work_zone()
    moving = rng.choice(
        ["car", "van", "truck", "bus", "motorcycle", "bicycle"], crowd, p=[0.5, 0.1, 0.1, 0.05, 0.1, 0.15]
    )
    parked = rng.choice(["car", "van", "truck", "trailer"], crowd, p=[0.7, 0.16, 0.1, 0.04])
    for kind, standing in zip(moving, parked):
        placing.place(str(kind), placing.on_a_lane)
        placing.place(str(standing), placing.at_the_kerb)
        placing.place("pedestrian", placing.on_the_pavement)
    return World(tuple(_surroundings(rng)), tuple(placing.actors), ego)


def _every_class_is_seen(world: World, duration: float) -> bool:
    """Whether each class has an object that, at some moment, is near and not hidden from the vehicle's roof."""
    seen: set[str] = set()
    for time in np.linspace(0, duration, 4):
        scene, owners = scene_at(float(time), world.still, world.bodies)
        x, y, _ = world.ego.at(float(time))
        eye = np.array([x, y, ROOF])
        boxes = np.stack([actor.box(float(time)) for actor in world.actors])
        near = np.flatnonzero(np.hypot(*(boxes[:, :2] - eye[:2]).T) < SEEN_WITHIN)
        towards = boxes[near, :3] - eye
        hits = scene.cast(np.broadcast_to(eye, towards.shape), towards)
        met = np.where(hits.solid >= 0, owners[hits.solid], -1)
        seen |= {KINDS[world.actors[number].kind].category for number, hit in zip(near, met) if number == hit}
    return seen >= {kind.category for kind in KINDS.values()}


def drivable_area() -> list[np.ndarray]:
    """Polygons (N, 2) of the roads."""
    return [
        np.array([[-REACH, -ROAD], [REACH, -ROAD], [REACH, ROAD], [-REACH, ROAD]]),
        np.array([[-CROSS_ROAD, -REACH], [CROSS_ROAD, -REACH], [CROSS_ROAD, REACH], [-CROSS_ROAD, REACH]]),
    ]


def _draw_ego(rng: np.random.Generator, duration: float) -> Path:
    """Straight ahead, to the right or to the left, so that the crossing is passed when half of the time is over."""
    speed = rng.uniform(4, 9)
    turn = rng.choice(["straight", "right", "left"])
    lane = -MAIN_LANES[1] if turn == "right" else -MAIN_LANES[0] if turn == "left" else -float(rng.choice(MAIN_LANES))
    radius = 6.0 if turn == "right" else 8.0
    target = -CROSS_LANES[0] if turn == "right" else CROSS_LANES[0]
    before_crossing = speed * duration * rng.uniform(0.3, 0.6)
    if turn == "straight":
        return Path((-before_crossing, lane, 0.0), speed)
    straight = max(1.0, before_crossing - radius)
    bend = (radius * np.pi / 2, (-1 if turn == "right" else 1) / radius)
    return Path((target - radius - straight, lane, 0.0), speed, ((straight, 0.0), bend))


class _Placing:
    """Finds room for objects, one after the other."""

    def __init__(self, rng: np.random.Generator, ego: Path, duration: float):
        self.rng, self.ego, self.actors = rng, ego, []
        self.times = np.arange(-0.25, duration + 0.5, 0.25)
        self.middle = np.array(ego.at(duration / 2)[:2])
        own = []
        for time in self.times:
            x, y, heading = ego.at(time)
            middle = (x + EGO_MIDDLE * np.cos(heading), y + EGO_MIDDLE * np.sin(heading))
            own.append([*middle, 0, *EGO_SIZE, heading])
        self.taken = [_outlines(np.array(own), 1.0)]  # (times,) each

    def place_nearby(self, kind: str) -> bool:
        """Try long to place an object near the ego's way."""
        where = {
            "construction_vehicle": self.at_the_kerb,
            "trailer": self.at_the_kerb,
            "barrier": self.at_the_kerb,
            "traffic_cone": self.at_the_kerb,
            "pedestrian": self.on_the_pavement,
            "parked_bicycle": self.on_the_pavement,
        }.get(kind, self.on_a_lane)
        return self.place(kind, where, tries=100, near=NEARBY)

    def place(self, kind: str, where, *, tries: int = 12, near: float = 60.0) -> bool:
        """Try to place an object where `where` draws; near the middle of the ego's way."""
        for _ in range(tries):
            size = draw_size(self.rng, KINDS[kind])
            path, height = where(kind, size, near)
            boxes = np.array([[x, y, 0, *size, heading] for x, y, heading in map(path.at, self.times)])
            if self._is_free(boxes):
                solids = draw_solids(self.rng, KINDS[kind], size)
                self.taken.append(_outlines(boxes, GAP))
                self.actors.append(Actor(kind, size, Body(solids, path, height), _attribute(kind, path)))
                return True
        return False

    def work_zone(self) -> None:
        """Cones and barriers in a row before the construction vehicle."""
        x, y, _ = next(a for a in self.actors if a.kind == "construction_vehicle").body.path.start
        for number in range(6):
            kind, step = ("traffic_cone", 0.9) if number % 2 == 0 else ("barrier", 1.0)
            here = Path((x - np.sign(y) * (5.5 + 1.6 * number * step), y, 0.0))
            self.place(kind, lambda kind, size, near, here=here: (here, 0.0), tries=1)

    def _is_free(self, boxes: np.ndarray) -> bool:
        outlines = _outlines(boxes, GAP)
        return not any(shapely.intersects(outlines, other).any() for other in self.taken)

    # Places: each draws a path and the height of the ground there.

    def on_a_lane(self, kind: str, size: tuple[float, float, float], near: float) -> tuple[Path, float]:
        """Moving along a lane of one of the streets, or waiting in one."""
        rng, forward = self.rng, float(self.rng.choice([-1, 1]))
        speed = 0.0 if rng.uniform() < 0.12 else rng.uniform(2.5, 5) if kind == "bicycle" else rng.uniform(4, 10)
        along = self.middle + rng.uniform(-near, near, 2) * 0.7 - forward * speed * self.times.mean() * 0.8
        aside = rng.uniform(-0.3, 0.3)
        if rng.uniform() < 0.7:
            lane = float(rng.choice(MAIN_LANES)) + aside
            return Path((along[0], -forward * lane, 0.0 if forward > 0 else np.pi), speed), 0.0
        lane = CROSS_LANES[0] + aside
        return Path((forward * lane, along[1], forward * np.pi / 2), speed), 0.0

    def at_the_kerb(self, kind: str, size: tuple[float, float, float], near: float) -> tuple[Path, float]:
        """Standing along the main street, beyond the crossing."""
        side = float(self.rng.choice([-1, 1]))
        x = self.middle[0] + self.rng.uniform(-near, near)
        x = np.sign(x) * max(abs(x), CROSS_ROAD + PAVEMENT + size[0] / 2)
        y = side * (ROAD - 0.3 - size[1] / 2)
        heading = (0.0 if side < 0 else np.pi) + self.rng.normal(0, 0.03)
        return Path((x, y, heading)), 0.0

    def on_the_pavement(self, kind: str, size: tuple[float, float, float], near: float) -> tuple[Path, float]:
        """Walking along the main street or standing beside it."""
        rng, side = self.rng, float(self.rng.choice([-1, 1]))
        y = side * (ROAD + rng.uniform(0.6, PAVEMENT - 0.8))
        x = self.middle[0] + rng.uniform(-near, near)
        x = np.sign(x) * max(abs(x), CROSS_ROAD + PAVEMENT)
        if kind != "pedestrian" or rng.uniform() < 0.3:
            return Path((x, y, rng.uniform(-np.pi, np.pi))), KERB
        # Away from the crossing: pavements end there.
        return Path((x, y, 0.0 if x > 0 else np.pi), rng.uniform(0.7, 1.8)), KERB


def _outlines(boxes: np.ndarray, gap: float) -> np.ndarray:
    """Polygons of boxes (N, 7) seen from above, made larger by half a gap on each side."""
    larger = torch.from_numpy(boxes + np.array([0, 0, 0, gap, gap, 0, 0]))
    return shapely.polygons(boxes3d.ground_polygons(larger).numpy())


def _attribute(kind: str, path: Path) -> str:
    moves = path.speed > 0
    category = KINDS[kind].category
    if category.startswith("human"):
        return "pedestrian.moving" if moves else "pedestrian.standing"
    if kind == "parked_bicycle":
        return "cycle.without_rider"
    if kind in ("bicycle", "motorcycle"):
        return "cycle.with_rider"
    if category.startswith("movable_object"):
        return ""
    on_a_lane = abs(path.start[1]) < MAIN_LANES[1] + 1 or abs(path.start[0]) < CROSS_ROAD
    return "vehicle.moving" if moves else "vehicle.stopped" if on_a_lane else "vehicle.parked"


def _surroundings(rng: np.random.Generator) -> list[Box]:
    """Road, markings, kerbs and buildings."""
    asphalt = (0.33, 0.33, 0.35)
    solids = [Box((0, 0, -0.5), (REACH, REACH, 0.5), 0.0, Texture("plain", asphalt, asphalt, 1.0))]
    solids += _markings()
    paving = Texture("checks", (0.62, 0.6, 0.57), (0.55, 0.54, 0.52), 1.5)
    for sx in (-1, 1):
        for sy in (-1, 1):
            inner, far = CROSS_ROAD, REACH
            solids.append(_slab((sx * inner, sy * ROAD), (sx * far, sy * far), KERB, paving))
            solids += _buildings(rng, sx, sy)
    return solids


def _slab(one: tuple[float, float], two: tuple[float, float], height: float, texture: Texture) -> Box:
    (x1, y1), (x2, y2) = one, two
    centre = ((x1 + x2) / 2, (y1 + y2) / 2, height / 2)
    return Box(centre, (abs(x2 - x1) / 2, abs(y2 - y1) / 2, height / 2), 0.0, texture)


def _markings() -> list[Box]:
    white = Texture("plain", (0.9, 0.9, 0.88), (0.9, 0.9, 0.88), 1.0)
    lines = []
    for start in np.arange(ROAD, 70, 6.0):
        for sign in (-1, 1):
            for y in (-3.5, 0.0, 3.5):
                lines.append(_slab((sign * start, y - 0.07), (sign * (start + 3), y + 0.07), 0.005, white))
            lines.append(_slab((-0.07, sign * (start + 4)), (0.07, sign * (start + 7)), 0.005, white))
    return lines


def _buildings(rng: np.random.Generator, sx: int, sy: int) -> list[Box]:
    """Houses along both streets of a quarter."""
    houses, x = [], CROSS_ROAD + PAVEMENT + 1
    while x < 100:
        width, depth, height = rng.uniform(9, 20), rng.uniform(8, 14), rng.uniform(6, 18)
        y = ROAD + PAVEMENT + rng.uniform(0.5, 3)
        houses.append(_slab((sx * x, sy * y), (sx * (x + width), sy * (y + depth)), height, _facade(rng)))
        x += width + float(rng.choice([0.0, 3.0]))
    y = ROAD + PAVEMENT + 19
    while y < 100:
        length, depth, height = rng.uniform(9, 20), rng.uniform(8, 14), rng.uniform(6, 18)
        x = CROSS_ROAD + PAVEMENT + rng.uniform(0.5, 3)
        houses.append(_slab((sx * x, sy * y), (sx * (x + depth), sy * (y + length)), height, _facade(rng)))
        y += length + float(rng.choice([0.0, 3.0]))
    return houses


def _facade(rng: np.random.Generator) -> Texture:
    wall: Colour = tuple(np.clip(rng.uniform(0.45, 0.8) + rng.normal(0, 0.05, 3), 0, 1).tolist())
    window: Colour = tuple((np.array(wall) * rng.uniform(0.35, 0.6)).tolist())
    return Texture(str(rng.choice(["stripes", "checks"])), wall, window, rng.uniform(2.6, 3.4))
