"""Grounds with curved borders and small or thin things on them: semantic segmentation in the layout of ADE20K.

Five grounds differ by texture and tint, five things by outline and by hues that overlap between neighbouring classes.
Things are small or thin and borders wind, so that coarse maps lose them, while patterns exceed what fine maps see: how
maps of several resolutions are fused decides the score. Some blots belong to no class, as in ADE20K.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np

from perception.datasets.synthetic import outlines, textures
from perception.datasets.synthetic.folder import Recipe, Summary, fill_splits, publish
from perception.datasets.synthetic.jpeg import write_jpeg
from perception.datasets.synthetic.outlines import Outline
from perception.datasets.synthetic.painting import lay
from perception.datasets.synthetic.params import PictureParams
from perception.datasets.synthetic.textures import Colour

GROUND_CLASSES = ("water", "meadow", "gravel", "paving", "planks")
THING_CLASSES = ("path", "pole", "disc", "ring", "star")
REGION_CLASSES = GROUND_CLASSES + THING_CLASSES
"""Class names in label order. A class' value in the label maps is one more: 0 stands for unlabelled pixels."""

METAINFO = {
    "classes": REGION_CLASSES,
    "palette": [
        *[(60, 130, 240), (90, 190, 70), (200, 170, 110), (150, 150, 160), (150, 90, 50)],
        *[(250, 230, 60), (230, 60, 70), (250, 130, 30), (180, 80, 220), (40, 220, 200)],
    ],
}
"""What `metainfo` of an MMSegmentation data set over these files is."""

EXAMPLE = "python tools/make_demo_data.py regions --out data/demo/regions --num-train 160 --num-val 40"

VERSION = 1  # to be raised by every change that alters the files

TEXTURES = dict(zip(GROUND_CLASSES, ("bands", "clouds", "terrazzo", "tiles", "brushed")))
HUES = dict(zip(REGION_CLASSES, (0.58, 0.34, 0.14, 0.78, 0.97, 0.15, 0.35, 0.55, 0.75, 0.95)))
GROUND_HUE_SPREAD, THING_HUE_SPREAD = 0.06, 0.12  # to either side, in turns
GROUNDS_PER_IMAGE = (2, 4)
THINGS_PER_IMAGE = (5, 10)
MIN_GROUND_DISTANCE = 15.0  # between the colours of a thing and of the grounds, in L*a*b* units
BLOT_SHARE = 0.35  # of pictures with an unlabelled blot
SUPERSAMPLE = 4


@dataclass(frozen=True)
class Params(PictureParams):
    """The choices that determine the files."""

    max_size: int = field(default=192, metadata={"help": "longest image side in pixels"})


@dataclass(frozen=True)
class Ground:
    """One ground; where it lies follows from `layout_seed`, see :func:`ground_labels`."""

    name: str
    palette: tuple[Colour, Colour, Colour]
    texture_seed: int
    layout_seed: int


@dataclass(frozen=True)
class Thing:
    """One thing, or an unlabelled blot (`name` is `None`). `outline` holds rings in pixel coordinates."""

    name: str | None
    outline: Outline
    colour: Colour
    surface: str
    contrast: float
    texture_seed: int


@dataclass(frozen=True)
class Scene:
    """Everything that is in one picture; `things` from back to front, `light` in radians clockwise from +x."""

    height: int
    width: int
    grounds: tuple[Ground, ...]
    border: float  # how long the waves of the borders between grounds are, in pixels
    things: tuple[Thing, ...]
    light: float
    grain: float
    grain_seed: int


# ---------------------------------------------------------------------------------------------------------- sampling


def sample_scene(rng: np.random.Generator, height: int, width: int, *, first: int = 0) -> Scene:
    """Draw a scene.

    Args:
        first: number of the classes (a ground and a thing, cyclically) that certainly occur, for a set in which every
            class has to.
    """
    size = (height, width)
    count = int(rng.integers(GROUNDS_PER_IMAGE[0], GROUNDS_PER_IMAGE[1] + 1))
    wanted = first % len(GROUND_CLASSES)
    others = rng.permutation([k for k in range(len(GROUND_CLASSES)) if k != wanted])
    grounds = tuple(_sample_ground(rng, GROUND_CLASSES[k]) for k in [wanted, *others[: count - 1]])

    things = []
    for _ in range(rng.random() < BLOT_SHARE):
        things.append(_sample_thing(rng, None, _blot(rng, size), grounds))
    names = [THING_CLASSES[first % len(THING_CLASSES)]]
    names += [THING_CLASSES[rng.integers(len(THING_CLASSES))] for _ in range(rng.integers(*THINGS_PER_IMAGE))]
    # Paths lie on the ground, so everything else is in front of them.
    for name in sorted(names, key=lambda name: name != "path"):
        things.append(_sample_thing(rng, name, _OUTLINES[name](rng, size), grounds))
    return Scene(
        height=height,
        width=width,
        grounds=grounds,
        border=rng.uniform(40, 80),
        things=tuple(things),
        light=rng.uniform(0, 2 * np.pi),
        grain=rng.uniform(0.01, 0.03),
        grain_seed=_draw_seed(rng),
    )


def _sample_ground(rng: np.random.Generator, name: str) -> Ground:
    hue = HUES[name] + rng.uniform(-GROUND_HUE_SPREAD, GROUND_HUE_SPREAD)
    saturation, value = rng.uniform(0.2, 0.5), rng.uniform(0.35, 0.8)
    accent = value + (0.18 if value < 0.55 else -0.18)
    palette = (
        textures.from_hsv(hue, saturation, value),
        textures.from_hsv(hue + rng.uniform(-0.05, 0.05), saturation * 0.8, value + rng.uniform(-0.08, 0.08)),
        textures.from_hsv(hue + rng.uniform(-0.03, 0.03), saturation, accent),
    )
    return Ground(name, palette, _draw_seed(rng), _draw_seed(rng))


def _sample_thing(rng: np.random.Generator, name: str | None, outline: Outline, grounds: tuple[Ground, ...]) -> Thing:
    """A thing whose colour differs from the grounds."""
    bases = np.array([colour for ground in grounds for colour in ground.palette])
    for _ in range(10):
        hue = rng.uniform() if name is None else HUES[name] + rng.uniform(-THING_HUE_SPREAD, THING_HUE_SPREAD)
        colour = textures.from_hsv(hue, rng.uniform(0.6, 0.95), rng.uniform(0.6, 1.0))
        if textures.colour_distance(np.array([colour]), bases).min() >= MIN_GROUND_DISTANCE:
            break
    surface = "marbled" if name is None else "plain"
    return Thing(name, outline, colour, surface, rng.uniform(0.1, 0.25), _draw_seed(rng))


def _path(rng: np.random.Generator, size: tuple[int, int]) -> Outline:
    """A winding band of 4 to 8 pixels from one side of the picture to another."""
    height, width = size
    across, slant, waves = rng.uniform(0.2, 0.8), rng.uniform(-0.5, 0.5), rng.uniform(0.6, 1.6)
    phase, swing = rng.uniform(0, 2 * np.pi), rng.uniform(0.04, 0.12)
    along = np.linspace(-0.05, 1.05, 60)
    sideways = across + slant * (along - 0.5) + swing * np.sin(2 * np.pi * waves * along + phase)
    points = np.stack([along * width, sideways * height], 1)
    if rng.random() < 0.5:
        points = np.stack([sideways * width, along * height], 1)
    return (_band(points, rng.uniform(4.0, 8.0)),)


def _pole(rng: np.random.Generator, size: tuple[int, int]) -> Outline:
    """A straight bar of 3 to 6 pixels."""
    angle, length = rng.uniform(0, np.pi), rng.uniform(0.25, 0.5) * min(size)
    reach = 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
    centre = rng.uniform(0.15, 0.85, size=2) * size[::-1]
    return (_band(np.stack([centre - reach, centre + reach]), rng.uniform(3.0, 6.0)),)


def _disc(rng: np.random.Generator, size: tuple[int, int]) -> Outline:
    return _stamped(rng, size, (outlines.regular_polygon(32),), (12, 30))


def _ring(rng: np.random.Generator, size: tuple[int, int]) -> Outline:
    hole = outlines.regular_polygon(48, radius=rng.uniform(0.55, 0.7))
    return _stamped(rng, size, (outlines.regular_polygon(48), hole), (18, 40))


def _star(rng: np.random.Generator, size: tuple[int, int]) -> Outline:
    return _stamped(rng, size, (outlines.star_polygon(5, inner=rng.uniform(0.36, 0.46)),), (16, 36))


def _blot(rng: np.random.Generator, size: tuple[int, int]) -> Outline:
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = 1 + 0.25 * np.sin(3 * turn + rng.uniform(0, 6)) + 0.15 * np.sin(5 * turn + rng.uniform(0, 6))
    return _stamped(rng, size, (np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1),), (12, 30))


_OUTLINES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Outline]] = dict(
    zip(THING_CLASSES, (_path, _pole, _disc, _ring, _star))
)


def _stamped(
    rng: np.random.Generator, size: tuple[int, int], outline: Outline, diameters: tuple[float, float]
) -> Outline:
    diameter = rng.uniform(*diameters)
    centre = rng.uniform(0.5 * diameter, np.array(size[::-1]) - 0.5 * diameter)
    return outlines.posed(outline, centre=tuple(centre), size=diameter, angle=rng.uniform(0, 2 * np.pi))


def _band(points: np.ndarray, width: float) -> np.ndarray:
    """The closed ring around a line `[N, 2]`, `width` pixels across."""
    direction = np.gradient(points, axis=0)
    normal = direction[:, ::-1] * [-1, 1] / np.linalg.norm(direction, axis=1, keepdims=True)
    return np.concatenate([points + 0.5 * width * normal, (points - 0.5 * width * normal)[::-1]])


def _draw_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**32))


# --------------------------------------------------------------------------------------------------------- rendering


def render(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene.

    Returns:
        The picture, `uint8` `[H, W, 3]` RGB, and its label map, `uint8` `[H, W]`: 0 where nothing is labelled, else
        one more than the index in `REGION_CLASSES` of what covers most of the pixel.
    """
    shares = ground_shares(scene)
    canvas = np.zeros((scene.height, scene.width, 3), np.float32)
    for share, ground in zip(shares, scene.grounds):
        rng = np.random.default_rng(ground.texture_seed)
        kind = TEXTURES[ground.name]
        canvas += share[..., None] * textures.background(
            rng, scene.height, scene.width, kind=kind, palette=ground.palette
        )
    values = np.array([label_value(ground.name) for ground in scene.grounds], np.uint8)
    labels = values[shares.argmax(0)]
    for thing in scene.things:
        rng = np.random.default_rng(thing.texture_seed)
        stamp = outlines.rasterise(thing.outline)
        pixels = textures.surface(
            rng, stamp.coverage, kind=thing.surface, colour=thing.colour, light=scene.light, contrast=thing.contrast
        )
        lay(canvas, stamp, pixels)
        picture, own = stamp.clip(scene.height, scene.width)
        labels[picture][stamp.coverage[own] >= 0.5] = label_value(thing.name)
    canvas = textures.add_grain(np.random.default_rng(scene.grain_seed), canvas, scene.grain)
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8), labels


def label_value(name: str | None) -> int:
    """The value of a class in label maps; 0 for `None`."""
    return 0 if name is None else REGION_CLASSES.index(name) + 1


def ground_shares(scene: Scene) -> np.ndarray:
    """Share of every pixel that each ground covers, `float32` `[N, H, W]`: where its random height is greatest."""
    heights = []
    for ground in scene.grounds:
        rng = np.random.default_rng(ground.layout_seed)
        noise = textures.value_noise(rng, scene.height, scene.width, cell=scene.border, octaves=2)
        size = (scene.width * SUPERSAMPLE, scene.height * SUPERSAMPLE)
        heights.append(cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC))
    owner = np.argmax(heights, 0)
    cells = owner.reshape(scene.height, SUPERSAMPLE, scene.width, SUPERSAMPLE)
    return np.stack([(cells == k).mean((1, 3), dtype=np.float32) for k in range(len(heights))])


# ----------------------------------------------------------------------------------------------------------- writing

SPLITS = {"training": "train", "validation": "val"}
"""Folder of each split, and what it is called in file names."""


def scene_of(params: Params, split: str, index: int) -> Scene:
    """Scene number `index` of a split ("training" or "validation"); it does not depend on how many others are made."""
    rng = np.random.default_rng([params.seed, list(SPLITS).index(split), index])
    height, width = (int(n) for n in rng.integers(params.min_size, params.max_size + 1, size=2))
    return sample_scene(rng, height, width, first=index)


def write(
    out: Path,
    params: Params,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write the data set `out`: `images/{training,validation}/*.jpg` and `annotations/{training,validation}/*.png`.

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
            images, annotations = root / "images" / split, root / "annotations" / split
            for folder in (images, annotations):
                folder.mkdir(parents=True)
            count = labelled = 0
            for index in numbers:
                image, labels = render(scene_of(params, split, index))
                name = f"regions_{SPLITS[split]}_{index + 1:08d}"
                write_jpeg(images / f"{name}.jpg", image)
                _, encoded = cv2.imencode(".png", labels)
                (annotations / f"{name}.png").write_bytes(encoded.tobytes())
                labelled += int((labels > 0).sum())
                count += 1
            return {"images": count, "labelled pixels": labelled}

        return fill_splits({"training": params.num_train, "validation": params.num_val}, fill_split, on_progress)

    return publish(out, Recipe("regions", VERSION, asdict(params)), fill, overwrite=overwrite)
