"""Things seen from above: vessels, vehicles, aircraft, tanks, piers, trees, and the ground they stand on.

An object fills the rotated rectangle of its `centre`, `length`, `width` and `angle` exactly: its outline touches all
four sides. Lengths are in pixels, angles in radians, clockwise as seen in the picture; at angle 0 the front is at +x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perception.datasets.synthetic import outlines, textures
from perception.datasets.synthetic.outlines import Outline, Stamp
from perception.datasets.synthetic.painting import cast_shadow, lay
from perception.datasets.synthetic.textures import Colour

Point = tuple[float, float]


@dataclass(frozen=True)
class AerialObject:
    """One object of a class of DOTA."""

    kind: str
    centre: Point
    length: float
    width: float
    angle: float
    colour: Colour
    accent: Colour
    texture_seed: int


@dataclass(frozen=True)
class Tree:
    """A crown that hides what is below."""

    centre: Point
    radius: float
    colour: Colour
    texture_seed: int


@dataclass(frozen=True)
class Patch:
    """Ground inside a polygon of `corners`; `material` is a key of `MATERIALS`."""

    corners: tuple[Point, ...]
    material: str
    texture_seed: int


def corners_of(item: AerialObject) -> np.ndarray:
    """`[4, 2]` corners (x, y) of an object's rectangle, clockwise as seen, from the rear left one."""
    return _placed((_rectangle(-1, 1, 1),), item)[0]


def body_of(item: AerialObject) -> Outline:
    """An object's outline in pixels, without its inner parts."""
    return _placed(_BODIES[item.kind], item)


def crown_of(tree: Tree) -> Outline:
    """A tree's ragged outline in pixels."""
    rng = np.random.default_rng(tree.texture_seed)
    return (outlines.regular_polygon(24) * rng.uniform(0.8, 1, size=(24, 1)) * tree.radius + np.asarray(tree.centre),)


# ----------------------------------------------------------------------------------------------------------- outlines


def _placed(outline: Outline, item: AerialObject) -> Outline:
    """From the object's frame, whose rectangle is [-1, 1]^2, to the picture."""
    cos, sin = np.cos(item.angle), np.sin(item.angle)
    scale = np.array([item.length, item.width]) / 2
    return tuple((ring * scale) @ np.array([[cos, sin], [-sin, cos]]) + np.asarray(item.centre) for ring in outline)


def _rectangle(rear: float, front: float, half_width: float, centre: float = 0.0) -> np.ndarray:
    low, high = centre - half_width, centre + half_width
    return np.array([[rear, low], [front, low], [front, high], [rear, high]])


def _mirrored(half: list[Point]) -> np.ndarray:
    """A closed outline from its half with v >= 0, listed from front to rear."""
    points = np.array(half)
    return np.concatenate([points, points[::-1] * [1, -1]])


_ROUND = outlines.regular_polygon(64)
_HULL = _mirrored([(1, 0.06), (0.82, 0.5), (0.5, 0.9), (0.2, 1), (-0.9, 1), (-1, 0.75)])
_BODIES: dict[str, Outline] = {
    "ship": (_HULL,),
    "plane": (
        _mirrored(
            [
                *[(1, 0.02), (0.92, 0.08), (0.38, 0.1), (-0.12, 1), (-0.3, 1)],
                *[(-0.1, 0.11), (-0.68, 0.08), (-0.92, 0.38), (-1, 0.38), (-0.94, 0.03)],
            ]
        ),
    ),
    "small-vehicle": (_mirrored([(1, 0.7), (0.85, 1), (-0.9, 1), (-1, 0.8)]),),
    "large-vehicle": (_rectangle(-1, 1, 1),),
    "storage-tank": (_ROUND,),
    "roundabout": (_ROUND,),
    "harbor": (_rectangle(-1, 1, 1),),
}

_WHITE, _DARK, _GREY = (0.93, 0.93, 0.9), (0.1, 0.11, 0.14), (0.42, 0.42, 0.44)


def _parts_of(item: AerialObject) -> list[tuple[Outline, Colour]]:
    """What is painted onto an object's body, from bottom to top."""
    accent, lighter = item.accent, tuple(0.55 * c + 0.45 for c in item.colour)
    if item.kind == "ship":
        parts = [(_HULL * [0.88, 0.7], lighter), (_rectangle(-0.78, -0.4, 0.55), _WHITE)]
        parts += [(_rectangle(front - 0.24, front, 0.45), accent) for front in (-0.02, 0.32, 0.64)]
    elif item.kind == "plane":
        parts = [(_rectangle(-0.88, 0.9, 0.035), lighter), (_rectangle(0.76, 0.86, 0.07), _DARK)]
        parts += [(_rectangle(0.0, 0.24, 0.045, side), _GREY) for side in (-0.45, 0.45)]
        parts += [(_rectangle(-1, -0.8, 0.03), accent)]
    elif item.kind == "small-vehicle":
        parts = [(_rectangle(0.2, 0.5, 0.75), _DARK), (_rectangle(-0.8, -0.6, 0.7), _DARK)]
    elif item.kind == "large-vehicle":
        parts = [(_rectangle(0.5, 1, 1), accent), (_rectangle(0.44, 0.53, 1), _DARK)]
        parts += [(_rectangle(0.78, 0.9, 0.8), _DARK), (_rectangle(-0.95, 0.38, 0.12), lighter)]
    elif item.kind == "storage-tank":
        parts = [(_ROUND * 0.86, lighter), (_ROUND * 0.78, item.colour), (_rectangle(0, 0.8, 0.06), accent)]
        parts += [(_ROUND * 0.14, _GREY)]
    elif item.kind == "roundabout":
        parts = [(_ROUND * 0.62, _WHITE), (_ROUND * 0.56, accent), (_ROUND * 0.2, lighter)]
    else:  # harbor
        parts = [(_rectangle(-1, 1, 0.1, side), lighter) for side in (-0.9, 0.9)]
        parts += [(_rectangle(rear, rear + 0.22, 0.45), accent) for rear in (-0.7, 0.1, 0.5)]
    return [((ring,), colour) for ring, colour in parts]


# ------------------------------------------------------------------------------------------------------------ ground

MATERIALS: dict[str, tuple[str, ...]] = {
    "water": ("bands", "clouds"),
    "land": ("clouds", "brushed"),
    "concrete": ("tiles", "terrazzo"),
    "asphalt": ("clouds", "terrazzo"),
    "paint": ("clouds",),
}
"""What the ground is made of, and the textures that it may have."""

Palette = tuple[Colour, Colour, Colour]


def sample_palettes(rng: np.random.Generator) -> dict[str, Palette]:
    """Colours of every material, of low contrast, so that objects stand out."""
    ranges = {  # hue, saturation, value
        "water": ((0.46, 0.63), (0.3, 0.65), (0.2, 0.42)),
        "land": ((0.1, 0.34), (0.18, 0.45), (0.3, 0.52)),
        "concrete": ((0.06, 0.16), (0.02, 0.12), (0.5, 0.66)),
        "asphalt": ((0.55, 0.75), (0.02, 0.1), (0.24, 0.36)),
        "paint": ((0.12, 0.16), (0.02, 0.08), (0.82, 0.9)),
    }
    palettes = {}
    for material, (hues, saturations, values) in ranges.items():
        hue, saturation, value = rng.uniform(*hues), rng.uniform(*saturations), rng.uniform(*values)
        contrast = rng.uniform(0.03, 0.08)
        palettes[material] = tuple(
            textures.from_hsv(hue + 0.02 * step, saturation, value + step * contrast) for step in (0, 0.5, 1)
        )
    return palettes


def ground(rng: np.random.Generator, height: int, width: int, material: str, palette: Palette) -> np.ndarray:
    """A picture `[height, width, 3]` of a material."""
    kinds = MATERIALS[material]
    return textures.background(rng, height, width, kind=kinds[rng.integers(len(kinds))], palette=palette)


# ---------------------------------------------------------------------------------------------------------- painting


def draw_patch(canvas: np.ndarray, patch: Patch, palettes: dict[str, Palette]) -> None:
    """Paint a piece of ground; what lies beyond the canvas is not computed."""
    stamp = outlines.rasterise((np.array(patch.corners),))
    rng = np.random.default_rng(patch.texture_seed)
    lay(canvas, stamp, ground(rng, *stamp.coverage.shape, patch.material, palettes[patch.material]))


def draw_object(canvas: np.ndarray, item: AerialObject, light: float) -> Stamp:
    """Paint an object with its shadow; returns its coverage."""
    flat = item.kind in ("roundabout", "harbor")
    reach = 0.0 if flat else float(np.clip(0.2 * item.width, 1, 5))
    stamp = outlines.rasterise(body_of(item), margin=1 + int(np.ceil(2 * reach)))
    if reach:
        cast_shadow(canvas, stamp, reach, light)
    _draw_surface(canvas, stamp, item.texture_seed, "plain" if item.width < 14 else "marbled", item.colour, light)
    for outline, colour in _parts_of(item):
        part = outlines.rasterise(_placed(outline, item))
        lay(canvas, part, np.broadcast_to(np.float32(colour), (*part.coverage.shape, 3)))
    return stamp


def draw_tree(canvas: np.ndarray, tree: Tree, light: float) -> Stamp:
    """Paint a crown with its shadow; returns its coverage."""
    reach = 0.4 * tree.radius
    stamp = outlines.rasterise(crown_of(tree), margin=1 + int(np.ceil(2 * reach)))
    cast_shadow(canvas, stamp, reach, light)
    _draw_surface(canvas, stamp, tree.texture_seed, "marbled", tree.colour, light)
    return stamp


def _draw_surface(canvas: np.ndarray, stamp: Stamp, seed: int, kind: str, colour: Colour, light: float) -> None:
    rng = np.random.default_rng(seed)
    pixels = textures.surface(rng, stamp.coverage, kind=kind, colour=colour, light=light, contrast=0.12)
    lay(canvas, stamp, pixels)
