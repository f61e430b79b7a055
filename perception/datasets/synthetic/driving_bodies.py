"""Road users and obstacles of the driving world, as solids of the sizes that nuScenes and KITTI have on average.

A body's frame is x forward, y left, z up from the ground below its middle; its solids fill its box of length, width and
height and touch all of its faces, so that the box is what an annotator would draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import textures
from .raycasting import Box, Colour, Sphere, Texture

Solids = list[Box | Sphere]

RUBBER, GLASS, LAMP, TAIL = (0.06, 0.06, 0.07), (0.13, 0.17, 0.22), (1.0, 0.97, 0.85), (0.85, 0.05, 0.05)
SKIN = (0.8, 0.6, 0.48)


@dataclass(frozen=True)
class Kind:
    """What there is to know of a kind of object.

    Attributes:
        category: of nuScenes.
        kitti: type in KITTI's labels.
        size: mean length, width, height in metres.
        build: makes the solids from a size and two colours.
        colours: hues and saturation and brightness ranges of the first colour, as (hue low, high, s, s, v, v).
    """

    category: str
    kitti: str
    size: tuple[float, float, float]
    build: Callable[[tuple[float, float, float], Colour, Colour], Solids]
    colours: tuple[float, float, float, float, float, float] = (0.0, 1.0, 0.1, 0.9, 0.35, 0.95)


def draw_size(rng: np.random.Generator, kind: Kind) -> tuple[float, float, float]:
    """Length, width and height of one of a kind: within 10 % of the mean."""
    length, width, height = np.round(np.multiply(kind.size, rng.uniform(0.9, 1.1, 3)), 3).tolist()
    return length, width, height


def draw_solids(rng: np.random.Generator, kind: Kind, size: tuple[float, float, float]) -> tuple[Box | Sphere, ...]:
    """The solids of one of a kind, in colours that are drawn."""
    hue_low, hue_high, *ranges = kind.colours
    first = textures.from_hsv(rng.uniform(hue_low, hue_high), rng.uniform(*ranges[:2]), rng.uniform(*ranges[2:]))
    second = textures.from_hsv(rng.uniform(), rng.uniform(0.1, 0.6), rng.uniform(0.2, 0.6))
    return tuple(kind.build(size, first, second))


def _block(low: tuple[float, ...], high: tuple[float, ...], colour: Colour) -> Box:
    """A box between two corners in one colour."""
    centre = tuple((a + b) / 2 for a, b in zip(low, high))
    half = tuple((b - a) / 2 for a, b in zip(low, high))
    return Box(centre, half, 0.0, Texture("plain", colour, colour, 1.0))


def _shaped(size: tuple[float, float, float], low: tuple[float, ...], high: tuple[float, ...], colour: Colour) -> Box:
    """A box between two places of the body: 0 is rear, right, bottom and 1 is front, left, top."""
    corner = [tuple((share - 0.5 * (axis < 2)) * size[axis] for axis, share in enumerate(end)) for end in (low, high)]
    return _block(*corner, colour)


def _wheels(size: tuple[float, float, float], places: tuple[float, ...], radius: float) -> Solids:
    """Dark blocks that reach from the ground to the axle, at shares of the length."""
    length, width, _ = size
    return [
        _block(
            ((place - 0.5) * length - radius, side * width / 2 - (0.22 if side > 0 else 0), 0),
            ((place - 0.5) * length + radius, side * width / 2 + (0.22 if side < 0 else 0), 2 * radius),
            RUBBER,
        )
        for place in places
        for side in (-1, 1)
    ]


def _lamps(size: tuple[float, float, float], height: float) -> Solids:
    """White in front and red behind, at a share of the height."""
    ends = ((0.985, 1.0, LAMP), (0.0, 0.015, TAIL))
    return [
        _shaped(size, (low, y, height), (high, y + 0.2, height + 0.1), colour)
        for low, high, colour in ends
        for y in (0.04, 0.76)
    ]


def _car(size, colour, _second) -> Solids:
    body = _shaped(size, (0.015, 0, 0.14), (0.985, 1, 0.56), colour)
    glass = _shaped(size, (0.12, 0.06, 0.56), (0.74, 0.94, 0.93), GLASS)
    roof = _shaped(size, (0.16, 0.08, 0.93), (0.68, 0.92, 1), colour)
    return [body, glass, roof, *_wheels(size, (0.2, 0.8), 0.32), *_lamps(size, 0.38)]


def _van(size, colour, _second) -> Solids:
    body = _shaped(size, (0.015, 0, 0.12), (0.985, 1, 0.5), colour)
    hull = _shaped(size, (0.015, 0.03, 0.5), (0.74, 0.97, 1), colour)
    screen = _shaped(size, (0.74, 0.06, 0.5), (0.86, 0.94, 0.86), GLASS)
    return [body, hull, screen, *_wheels(size, (0.2, 0.8), 0.34), *_lamps(size, 0.34)]


def _truck(size, colour, second) -> Solids:
    cab = _shaped(size, (0.78, 0.02, 0.15), (0.985, 0.98, 0.8), colour)
    screen = _shaped(size, (0.9, 0.05, 0.5), (0.992, 0.95, 0.74), GLASS)
    cargo = _shaped(size, (0.015, 0, 0.32), (0.76, 1, 1), second)
    frame = _shaped(size, (0.015, 0.2, 0.18), (0.8, 0.8, 0.32), RUBBER)
    return [cab, screen, cargo, frame, *_wheels(size, (0.16, 0.28, 0.88), 0.45), *_lamps(size, 0.2)]


def _bus(size, colour, _second) -> Solids:
    lower = _shaped(size, (0.015, 0, 0.1), (0.985, 1, 0.42), colour)
    windows = _shaped(size, (0.02, 0.01, 0.42), (0.99, 0.99, 0.8), GLASS)
    roof = _shaped(size, (0.015, 0, 0.8), (0.985, 1, 1), colour)
    return [lower, windows, roof, *_wheels(size, (0.15, 0.8), 0.45), *_lamps(size, 0.2)]


def _trailer(size, _colour, second) -> Solids:
    cargo = _shaped(size, (0, 0, 0.25), (1, 1, 1), second)
    return [cargo, *_wheels(size, (0.1, 0.2, 0.9), 0.45), _shaped(size, (0, 0.1, 0.16), (1, 0.9, 0.25), RUBBER)]


def _construction_vehicle(size, colour, _second) -> Solids:
    tracks = [_shaped(size, (0.0, y, 0), (0.62, y + 0.22, 0.28), RUBBER) for y in (0, 0.78)]
    deck = _shaped(size, (0.03, 0.08, 0.28), (0.58, 0.92, 0.55), colour)
    cab = _shaped(size, (0.22, 0.1, 0.55), (0.52, 0.5, 1), GLASS)
    arm = _shaped(size, (0.52, 0.55, 0.6), (0.98, 0.7, 0.74), colour)
    shovel = _shaped(size, (0.86, 0.4, 0.02), (1, 0.85, 0.6), RUBBER)
    return [*tracks, deck, cab, arm, shovel]


def _cycle(size: tuple[float, float, float], frame: Colour, height: float) -> Solids:
    """Two wheels as thin blocks, a frame and a handlebar as wide as the body."""
    length = size[0]
    radius = min(0.33, 0.24 * length) / length
    wheels = [_shaped(size, (x - radius, 0.44, 0), (x + radius, 0.56, 0.4), RUBBER) for x in (radius, 1 - radius)]
    bar = _shaped(size, (0.66, 0, height), (0.72, 1, height + 0.05), frame)
    return [*wheels, bar, _shaped(size, (0.25, 0.42, 0.25), (0.75, 0.58, height), frame)]


def _rider(size: tuple[float, float, float], colour: Colour, seat: float) -> Solids:
    _, width, height = size
    head = 0.11
    trunk = _shaped(size, (0.3, 0.15, seat), (0.52, 0.85, (height - 2 * head) / height), colour)
    return [trunk, Sphere((-0.09 * size[0], 0, height - head), min(head, width / 2), _plain(SKIN))]


def _bicycle(size, colour, second) -> Solids:
    return _cycle(size, colour, 0.6) + _rider(size, second, 0.5)


def _parked_bicycle(size, colour, _second) -> Solids:
    return [*_cycle(size, colour, 0.95), _shaped(size, (0.3, 0.4, 0.85), (0.42, 0.6, 1), RUBBER)]


def _motorcycle(size, colour, second) -> Solids:
    tank = _shaped(size, (0.2, 0.25, 0.3), (0.78, 0.75, 0.6), colour)
    return [*_cycle(size, colour, 0.62), tank, *_rider(size, second, 0.55)]


def _pedestrian(size, colour, second) -> Solids:
    height, head = size[2], 0.08 * size[2]
    legs = _shaped(size, (0.3, 0.2, 0), (0.7, 0.8, 0.48), second)
    strides = [
        _shaped(size, (0, 0.2, 0), (0.3, 0.42, 0.2), second),
        _shaped(size, (0.7, 0.58, 0), (1, 0.8, 0.2), second),
    ]
    trunk = _shaped(size, (0.25, 0, 0.48), (0.75, 1, 0.84), colour)
    return [legs, *strides, trunk, Sphere((0, 0, height - head), head, _plain(SKIN))]


def _cone(size, _colour, _second) -> Solids:
    orange, white = (0.98, 0.36, 0.06), (0.95, 0.95, 0.92)
    steps = ((0.0, 0.06, 0.0, orange), (0.06, 0.4, 0.2, orange), (0.4, 0.65, 0.3, white), (0.65, 1.0, 0.4, orange))
    return [_shaped(size, (d, d, low), (1 - d, 1 - d, high), colour) for low, high, d, colour in steps]


def _barrier(size, _colour, _second) -> Solids:
    red = Texture("checks", (0.92, 0.92, 0.9), (0.85, 0.12, 0.1), size[1] / 3)
    length, width, height = size
    plank = Box((0, 0, 0.7 * height), (0.2 * length, width / 2, 0.3 * height), 0.0, red)
    feet = [_shaped(size, (0, y, 0), (1, y + 0.08, 0.4), (0.5, 0.5, 0.5)) for y in (0.04, 0.88)]
    return [plank, *feet]


def _plain(colour: Colour) -> Texture:
    return Texture("plain", colour, colour, 1.0)


_ORANGE = (0.08, 0.13, 0.8, 0.95, 0.8, 0.95)

KINDS = {
    "car": Kind("vehicle.car", "Car", (4.62, 1.95, 1.73), _car),
    "van": Kind("vehicle.car", "Van", (5.1, 1.95, 2.2), _van),
    "truck": Kind("vehicle.truck", "Truck", (6.93, 2.51, 2.84), _truck),
    "bus": Kind("vehicle.bus.rigid", "Misc", (10.7, 2.92, 3.3), _bus, (0.0, 0.18, 0.6, 0.9, 0.6, 0.9)),
    "trailer": Kind("vehicle.trailer", "Misc", (11.0, 2.9, 3.9), _trailer),
    "construction_vehicle": Kind("vehicle.construction", "Misc", (6.4, 2.8, 3.2), _construction_vehicle, _ORANGE),
    "motorcycle": Kind("vehicle.motorcycle", "Misc", (2.1, 0.78, 1.5), _motorcycle),
    "bicycle": Kind("vehicle.bicycle", "Cyclist", (1.75, 0.6, 1.7), _bicycle),
    "parked_bicycle": Kind("vehicle.bicycle", "Misc", (1.7, 0.55, 1.1), _parked_bicycle),
    "pedestrian": Kind("human.pedestrian.adult", "Pedestrian", (0.73, 0.67, 1.77), _pedestrian),
    "traffic_cone": Kind("movable_object.trafficcone", "Misc", (0.41, 0.41, 1.07), _cone),
    "barrier": Kind("movable_object.barrier", "Misc", (0.5, 2.5, 1.0), _barrier),
}
"""By name; detection classes of nuScenes beside "van" and "parked_bicycle"."""
