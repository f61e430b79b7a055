"""Flat shapes on textured backgrounds: object detection and instance segmentation in COCO format.

Six classes that differ by outline alone: colour, pattern, size, rotation and place are drawn independently of the
class. Objects overlap and leave the picture a little; boxes and masks are those of the visible pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from perception.datasets.synthetic import outlines, textures
from perception.datasets.synthetic.coco_writer import CocoWriter
from perception.datasets.synthetic.folder import Recipe, Summary, fill_splits, publish
from perception.datasets.synthetic.outlines import Outline, Stamp
from perception.datasets.synthetic.painting import cast_shadow, lay
from perception.datasets.synthetic.params import PictureParams
from perception.datasets.synthetic.textures import Colour

SHAPE_CLASSES = ("circle", "square", "triangle", "star", "cross", "ring")
"""Class names in label order."""

METAINFO = {
    "classes": SHAPE_CLASSES,
    "palette": [(230, 60, 70), (60, 130, 240), (250, 190, 40), (160, 80, 220), (40, 190, 120), (250, 120, 30)],
}
"""What `metainfo` of an MMDetection data set over these files is."""

EXAMPLE = "python tools/make_demo_data.py shapes --out data/demo/shapes --num-train 160 --num-val 40"

VERSION = 1  # to be raised by every change that alters the files

OBJECT_SIZE = (12.0, 110.0)  # longer side of an object's box in pixels, before occlusion
LARGEST_SHARE = 0.6  # of the picture's shorter side that an object may span
OBJECTS_PER_IMAGE = (3, 8)  # before those for which there is no room are dropped
MIN_VISIBLE = 0.65  # share of an object's area that stays visible
MIN_VISIBLE_SIDE = 10  # pixels of its visible box: tiny objects are hardly hidden at all
MIN_PATTERNED_SIZE = 24.0  # on smaller objects a pattern would hide the outline


@dataclass(frozen=True)
class Params(PictureParams):
    """The choices that determine the files."""


@dataclass(frozen=True)
class ShapeObject:
    """One object. Lengths are in pixels, angles in radians, `centre` is (x, y)."""

    shape: str
    centre: tuple[float, float]
    size: float
    angle: float
    proportion: float  # in [0, 1]: thickness of a ring or a cross, depth of a star's notches
    colour: Colour
    surface: str
    contrast: float
    texture_seed: int


@dataclass(frozen=True)
class Scene:
    """Everything that is in one picture; `objects` from back to front, `light` in radians clockwise from +x."""

    height: int
    width: int
    background: str
    palette: tuple[Colour, Colour, Colour]
    light: float
    grain: float
    texture_seed: int
    objects: tuple[ShapeObject, ...]


def outline_of(item: ShapeObject) -> Outline:
    """The outline of an object in pixel coordinates, with the parts that are hidden or beyond the border."""
    if item.shape == "circle":
        rings = (outlines.regular_polygon(64),)
    elif item.shape == "square":
        rings = (outlines.regular_polygon(4),)
    elif item.shape == "triangle":
        rings = (outlines.regular_polygon(3),)
    elif item.shape == "star":
        rings = (outlines.star_polygon(5, inner=0.36 + 0.12 * item.proportion),)
    elif item.shape == "cross":
        rings = (outlines.cross_polygon(arm=0.26 + 0.12 * item.proportion),)
    elif item.shape == "ring":
        rings = (outlines.regular_polygon(64), outlines.regular_polygon(64, radius=0.45 + 0.17 * item.proportion))
    else:
        raise ValueError(f"no shape {item.shape!r}; there are: {', '.join(SHAPE_CLASSES)}")
    return outlines.posed(rings, centre=item.centre, size=item.size, angle=item.angle)


# ---------------------------------------------------------------------------------------------------------- sampling


def sample_scene(rng: np.random.Generator, height: int, width: int, *, first_shape: str | None = None) -> Scene:
    """Draw a scene whose objects overlap but stay recognisable (`MIN_VISIBLE`, `MIN_VISIBLE_SIDE`).

    Args:
        first_shape: the class of the hindmost object, for a set in which every class has to occur.
    """
    light, palette = rng.uniform(0, 2 * np.pi), textures.muted_palette(rng)
    layers = _Layers(height, width)
    objects: list[ShapeObject] = []
    for _ in range(rng.integers(OBJECTS_PER_IMAGE[0], OBJECTS_PER_IMAGE[1] + 1)):
        shape = first_shape if first_shape and not objects else SHAPE_CLASSES[rng.integers(len(SHAPE_CLASSES))]
        placed = _place(rng, shape, objects, layers, palette)
        if placed is not None:
            objects.append(placed)
    return Scene(
        height=height,
        width=width,
        background=_choice(rng, textures.BACKGROUNDS),
        palette=palette,
        light=light,
        grain=rng.uniform(0.005, 0.02),
        texture_seed=_draw_seed(rng),
        objects=tuple(objects),
    )


def _place(
    rng: np.random.Generator, shape: str, others: list[ShapeObject], layers: _Layers, palette: tuple[Colour, ...]
) -> ShapeObject | None:
    """A new foremost object that leaves the others visible enough, or `None` where there is no room."""
    limit = min(OBJECT_SIZE[1], LARGEST_SHARE * min(layers.owner.shape))
    # Nearly uniform in the logarithm: the power keeps the tiny ones from being the majority.
    size = OBJECT_SIZE[0] * (limit / OBJECT_SIZE[0]) ** (rng.uniform() ** 0.75)
    item = ShapeObject(
        shape=shape,
        centre=(0.0, 0.0),
        size=size,
        angle=rng.uniform(0, 2 * np.pi),
        proportion=rng.uniform(),
        colour=_contrasting_colour(rng, palette + tuple(other.colour for other in others)),
        surface=_choice(rng, textures.SURFACES) if size >= MIN_PATTERNED_SIZE else "plain",
        contrast=rng.uniform(0.1, 0.25),
        texture_seed=_draw_seed(rng),
    )
    for _ in range(20):
        item = replace(item, centre=_sample_centre(rng, size, others, layers.owner.shape))
        if layers.add(outlines.rasterise(outline_of(item))):
            return item
    return None


def _sample_centre(
    rng: np.random.Generator, size: float, others: list[ShapeObject], picture: tuple[int, int]
) -> tuple[float, float]:
    """Anywhere, up to 15% of `size` over the border; every third time beside another object, to overlap it."""
    low, high = 0.35 * size, np.array(picture[::-1]) - 0.35 * size
    if others and rng.uniform() < 0.35:
        other = others[rng.integers(len(others))]
        direction, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.6) * (size + other.size)
        centre = np.array(other.centre) + reach * np.array([np.cos(direction), np.sin(direction)])
        centre = np.clip(centre, low, high)
    else:
        centre = rng.uniform(low, high)
    return float(centre[0]), float(centre[1])


def _contrasting_colour(rng: np.random.Generator, avoid: tuple[Colour, ...]) -> Colour:
    """Of a few vivid colours the one that is farthest from all colours to `avoid`."""
    candidates = [textures.vivid_colour(rng) for _ in range(6)]
    distance = textures.colour_distance(np.array(candidates), np.array(avoid)).min(axis=1)
    return candidates[int(distance.argmax())]


def _choice(rng: np.random.Generator, names: dict) -> str:
    return list(names)[rng.integers(len(names))]


def _draw_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**32))


class _Layers:
    """Which object each pixel shows, while objects are laid on top of each other."""

    def __init__(self, height: int, width: int):
        self.owner = np.full((height, width), -1, np.int32)
        self._full_area: list[int] = []

    def add(self, stamp: Stamp) -> bool:
        """Lay an object on top, unless it or one below would then show too little of itself."""
        picture, own = stamp.clip(*self.owner.shape)
        mask = stamp.coverage >= 0.5
        owner, areas = self.owner.copy(), [*self._full_area, int(mask.sum())]
        below = np.unique(owner[picture][mask[own]])
        owner[picture][mask[own]] = len(self._full_area)
        changed = [*below[below >= 0], len(self._full_area)]
        if not all(_shows_enough(owner == k, areas[k]) for k in changed):
            return False
        self.owner, self._full_area = owner, areas
        return True


def _shows_enough(visible: np.ndarray, full_area: int) -> bool:
    if visible.sum() < MIN_VISIBLE * full_area:
        return False
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    return min(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 >= MIN_VISIBLE_SIDE


# --------------------------------------------------------------------------------------------------------- rendering


def render(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene.

    Returns:
        The picture, `uint8` `[H, W, 3]` RGB, and the visible pixels of each object, `bool` `[N, H, W]`.
    """
    rng = np.random.default_rng(scene.texture_seed)
    canvas = textures.background(rng, scene.height, scene.width, kind=scene.background, palette=scene.palette)
    owner = np.full((scene.height, scene.width), -1, np.int32)
    for index, item in enumerate(scene.objects):
        reach = max(2, round(0.12 * item.size))
        stamp = outlines.rasterise(outline_of(item), margin=2 * reach)
        cast_shadow(canvas, stamp, reach, scene.light)
        _draw_object(canvas, stamp, item, scene.light)
        picture, own = stamp.clip(scene.height, scene.width)
        owner[picture][stamp.coverage[own] >= 0.5] = index
    canvas = textures.add_grain(rng, canvas, scene.grain)
    image = (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)
    masks = owner[None] == np.arange(len(scene.objects))[:, None, None]
    return image, masks


def _draw_object(canvas: np.ndarray, stamp: Stamp, item: ShapeObject, light: float) -> None:
    rng = np.random.default_rng(item.texture_seed)
    pixels = textures.surface(
        rng, stamp.coverage, kind=item.surface, colour=item.colour, light=light, contrast=item.contrast
    )
    lay(canvas, stamp, pixels)


# ----------------------------------------------------------------------------------------------------------- writing


def scene_of(params: Params, split: str, index: int) -> Scene:
    """Scene number `index` of a split ("train" or "val"); it does not depend on how many others are made."""
    rng = np.random.default_rng([params.seed, ("train", "val").index(split), index])
    height, width = (int(n) for n in rng.integers(params.min_size, params.max_size + 1, size=2))
    return sample_scene(rng, height, width, first_shape=SHAPE_CLASSES[index % len(SHAPE_CLASSES)])


def write(
    out: Path,
    params: Params,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write the data set `out`: `images/{train,val}/*.jpg` and `annotations/instances_{train,val}.json`.

    Nothing is visible at `out` before everything is there. A complete set of the same parameters is left as it is.

    Args:
        overwrite: replace a generated set that has other parameters or lost files.
        on_progress: called with the number of finished images and their total.

    Raises:
        FileExistsError: `out` holds something else.
        OSError: a file cannot be written.
    """

    def fill(root: Path) -> dict[str, dict[str, int]]:
        def fill_split(split: str, numbers: Iterator[int]) -> dict[str, int]:
            writer = CocoWriter(
                root, split, SHAPE_CLASSES, description="Synthetic shapes with exact masks", supercategory="shape"
            )
            for index in numbers:
                scene = scene_of(params, split, index)
                image, masks = render(scene)
                writer.add(image, masks, [SHAPE_CLASSES.index(item.shape) for item in scene.objects])
            return writer.finish()

        return fill_splits({"train": params.num_train, "val": params.num_val}, fill_split, on_progress)

    return publish(out, Recipe("shapes", VERSION, asdict(params)), fill, overwrite=overwrite)
