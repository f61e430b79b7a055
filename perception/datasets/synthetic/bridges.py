"""Large aerial pictures of rivers and their bridges, with rotated boxes in DOTA's format.

Bridges reach from 20 pixels to the whole picture. A long one cannot be told in a window of the native picture: jetties,
breakwaters and concrete tracks have the same surfaces and widths, and only who sees both banks knows that something
crosses. Its deck is its box, exactly: from the land behind one bank to that behind the other. Roads lead on from there,
and others run along banks. Every picture has one main water, by turns as wide as most of the picture, a third, a tenth,
or none but brooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np

from perception.datasets.synthetic import aerial, textures
from perception.datasets.synthetic.aerial import AerialObject, Palette, Patch, Tree
from perception.datasets.synthetic.dota_writer import DotaWriter
from perception.datasets.synthetic.folder import Recipe, Summary, fill_splits, publish
from perception.datasets.synthetic.params import PictureParams
from perception.datasets.synthetic.strips import Strip, draw_strip
from perception.datasets.synthetic.watersides import River, Road, Waterside, sample_river

BRIDGE_CLASSES = ("bridge",)
"""Class names in label order, as GLH-Bridge has them."""

METAINFO = {"classes": BRIDGE_CLASSES, "palette": [(255, 64, 64)]}
"""What `metainfo` of an MMRotate data set over these files is."""

EXAMPLE = "python tools/make_demo_data.py bridges --out data/demo/bridges --num-train 12 --num-val 4"

VERSION = 1  # to be raised by every change that alters the files

WATERS = ("estuary", "river", "canal", "brooks")
"""Main waters, which scenes have by turns."""

_ACROSS = {"estuary": (0.5, 0.88), "river": (0.14, 0.36), "canal": (0.05, 0.11)}  # shares of the shorter side
_BROOK = (12.0, 48.0)  # pixels
_TRIES = 60  # for each thing that is wanted
_FIELD = (90.0, 420.0)  # pixels


@dataclass(frozen=True)
class Params(PictureParams):
    """The choices that determine the files."""

    num_train: int = field(default=12, metadata={"help": "number of training images"})
    num_val: int = field(default=4, metadata={"help": "number of validation images"})
    min_size: int = field(default=2000, metadata={"help": "shortest image side in pixels, at least 256"})
    max_size: int = field(default=4000, metadata={"help": "longest image side in pixels, at most 8192"})
    min_length: float = field(default=20.0, metadata={"help": "length of the shortest bridges in pixels, at least 16"})

    def __post_init__(self):
        super().__post_init__()
        if self.min_size < 256:
            raise ValueError(f"min_size must be at least 256 pixels, not {self.min_size}: rivers need room")
        if self.max_size > 8192:
            raise ValueError(f"max_size must be at most 8192 pixels, not {self.max_size}: pictures are made in memory")
        # No number compares with nan, which is therefore refused as well.
        if not 16 <= self.min_length <= self.min_size / 4:
            raise ValueError(
                f"min_length must be from 16 pixels to a quarter of min_size ({self.min_size / 4:g}), "
                f"not {self.min_length:g}"
            )


@dataclass(frozen=True)
class Scene:
    """Everything that is in one picture, each list from bottom to top; `light` in radians clockwise from +x.

    `bridges` are the objects. `others` look like them and are none.
    """

    height: int
    width: int
    light: float
    grain: float
    texture_seed: int
    palettes: dict[str, Palette]
    field_angle: float
    rivers: tuple[River, ...]
    roads: tuple[Road, ...]
    houses: tuple[Patch, ...]
    trees: tuple[Tree, ...]
    others: tuple[Strip, ...]
    bridges: tuple[Strip, ...]
    ships: tuple[AerialObject, ...]


# ---------------------------------------------------------------------------------------------------------- sampling


def sample_scene(
    rng: np.random.Generator, height: int, width: int, *, main_water: str, min_length: float = 20.0
) -> Scene:
    """Draw a scene.

    Args:
        main_water: one of `WATERS`.
        min_length: of bridges, in pixels.
    """
    palettes = aerial.sample_palettes(rng)
    side = min(height, width)
    rivers = _sample_rivers(rng, height, width, main_water)
    place = Waterside(rng, height, width, rivers, min_length)
    size = float(np.sqrt(height * width)) / 1000
    for index, river in enumerate(rivers):
        main = index == 0 and main_water != "brooks"
        wanted = int(rng.integers(2, 5)) if main else 1 + int(rng.integers(1, 3) * size)
        if main:
            # Before the bridges, which would leave no room for long ones.
            _repeat(lambda river=river: place.jetty(river), 1)
        _repeat(lambda river=river: place.bridge(river), wanted)
        if main:
            _repeat(lambda river=river: place.jetty(river), int(rng.integers(1, 5)))
            _repeat(lambda river=river: place.breakwater(river), int(rng.integers(0, 3)))
        place.bank_road(river)
    _repeat(place.track, int(rng.integers(1, 2 + size)))
    for _ in range(int(rng.integers(1, 3 + size))):
        place.road_from(tuple(rng.uniform(0, 1, 2) * (width, height)))
    return Scene(
        height=height,
        width=width,
        light=rng.uniform(0, 2 * np.pi),
        grain=rng.uniform(0.005, 0.015),
        texture_seed=int(rng.integers(2**32)),
        palettes=palettes,
        field_angle=rng.uniform(0, np.pi),
        rivers=tuple(rivers),
        roads=tuple(place.roads),
        houses=tuple(_sample_houses(rng, place, int(side / 12))),
        trees=tuple(_sample_trees(rng, place, height, width, int(60 * size))),
        others=tuple(place.jetties),
        bridges=tuple(place.bridges),
        ships=tuple(_sample_ships(rng, place, height, width, int(rng.integers(2, 4 + 6 * size)))),
    )


def _sample_rivers(rng: np.random.Generator, height: int, width: int, main_water: str) -> list[River]:
    side, rivers = min(height, width), []
    if main_water != "brooks":
        across = side * rng.uniform(*_ACROSS[main_water])
        through = tuple(0.5 + rng.uniform(-0.06, 0.06, 2) * (1 if main_water == "estuary" else 4))
        bend = side * rng.uniform(0.01, 0.05)
        rivers.append(
            sample_river(
                rng, height, width, across=across, bend=bend, through=(through[0] * width, through[1] * height)
            )
        )
    for _ in range(int(rng.integers(3, 6)) if main_water == "brooks" else int(rng.integers(1, 4))):
        widest = min(_BROOK[1], max(16.0, side / 24))
        across = float(np.exp(rng.uniform(np.log(_BROOK[0]), np.log(widest))))
        through = (rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height)
        rivers.append(
            sample_river(rng, height, width, across=across, bend=across * rng.uniform(0.5, 4), through=through)
        )
    return rivers


def _repeat(build: Callable[[], bool], wanted: int) -> None:
    """Builds so many, if there is room for them."""
    for _ in range(_TRIES * wanted):
        if wanted and build():
            wanted -= 1


def _sample_houses(rng: np.random.Generator, place: Waterside, count: int) -> Iterator[Patch]:
    """Roofs along roads."""
    for _ in range(count if place.roads else 0):
        road = place.roads[int(rng.integers(len(place.roads)))]
        index = int(rng.integers(len(road.points) - 1))
        start, end = np.array(road.points[index]), np.array(road.points[index + 1])
        along = (end - start) / (np.linalg.norm(end - start) + 1e-9)
        across = np.array([-along[1], along[0]]) * rng.choice([-1, 1])
        length, depth = rng.uniform(8, 34), rng.uniform(7, 18)
        centre = start + along * rng.uniform(0, 40) + across * (road.width / 2 + depth * rng.uniform(0.8, 2.5) + 4)
        if place.distance(tuple(centre)) < 30 or not place.free(tuple(centre), length):
            continue
        corners = [
            centre + a * along * length / 2 + b * across * depth / 2 for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        ]
        material = ("paint", "concrete", "asphalt")[int(rng.integers(3))]
        yield Patch(tuple((float(x), float(y)) for x, y in corners), material, int(rng.integers(2**32)))


def _sample_trees(rng: np.random.Generator, place: Waterside, height: int, width: int, count: int) -> Iterator[Tree]:
    for _ in range(count):
        centre = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
        radius = float(rng.uniform(4, 13))
        if place.distance(centre) > radius + 8 and place.free(centre, radius + 8):
            colour = textures.from_hsv(rng.uniform(0.2, 0.36), rng.uniform(0.3, 0.6), rng.uniform(0.2, 0.42))
            yield Tree(centre, radius, colour, int(rng.integers(2**32)))


def _sample_ships(
    rng: np.random.Generator, place: Waterside, height: int, width: int, count: int
) -> Iterator[AerialObject]:
    for _ in range(count):
        centre = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
        length = float(rng.uniform(14, 70))
        hull = textures.from_hsv(rng.uniform(), rng.uniform(0.1, 0.6), rng.uniform(0.5, 0.9))
        shape = length, length * rng.uniform(0.2, 0.3), rng.uniform(0, 2 * np.pi)
        ship = AerialObject("ship", centre, *shape, hull, textures.vivid_colour(rng), int(rng.integers(2**32)))
        if place.floats(aerial.corners_of(ship)):
            yield ship


# --------------------------------------------------------------------------------------------------------- rendering


def render(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene.

    Returns:
        The picture, `uint8` `[H, W, 3]` RGB, and the corners of each bridge, `[N, 4, 2]` pixels, clockwise as seen.
    """
    rng = np.random.default_rng(scene.texture_seed)
    canvas = aerial.ground(rng, scene.height, scene.width, "land", scene.palettes["land"])
    _tint_fields(rng, canvas, scene.field_angle)
    _flood(rng, canvas, scene)
    _pave(canvas, scene)
    for tree in scene.trees:
        aerial.draw_tree(canvas, tree, scene.light)
    for house in scene.houses:
        aerial.draw_patch(canvas, house, scene.palettes)
    for ship in scene.ships:
        aerial.draw_object(canvas, ship, scene.light)
    for strip in (*scene.others, *scene.bridges):
        draw_strip(canvas, strip, scene.light)
    canvas = textures.add_grain(rng, canvas, scene.grain)
    image = (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)
    return image, np.array([strip.corners() for strip in scene.bridges]).reshape(-1, 4, 2)


def _tint_fields(rng: np.random.Generator, canvas: np.ndarray, angle: float) -> None:
    """Make the land a patchwork of fields, whose edges are straight as well."""
    height, width = canvas.shape[:2]
    y, x = np.ogrid[:height, :width]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    reach = np.hypot(height, width)
    edges = [np.cumsum(rng.uniform(*_FIELD, size=int(2 * reach / _FIELD[0]))) - reach for _ in range(2)]
    column = np.searchsorted(edges[0], x * cos + y * sin)
    row = np.searchsorted(edges[1], y * cos - x * sin)
    tints = 1 + rng.uniform(-0.14, 0.14, size=(len(edges[1]) + 1, len(edges[0]) + 1, 1)) * rng.uniform(0.6, 1, 3)
    canvas *= tints.astype(np.float32)[row, column]


def _flood(rng: np.random.Generator, canvas: np.ndarray, scene: Scene) -> None:
    """Lay the rivers in, with pale banks and shallows."""
    wet = np.zeros((scene.height, scene.width), np.uint8)
    for river in scene.rivers:
        cv2.fillPoly(wet, [_fixed_point(river.banks)], 255, cv2.LINE_AA, _BITS)
    water = aerial.ground(rng, scene.height, scene.width, "water", scene.palettes["water"])
    depth = cv2.GaussianBlur(wet, (0, 0), 9).astype(np.float32) / 255
    sand = np.float32(textures.from_hsv(rng.uniform(0.08, 0.13), rng.uniform(0.2, 0.4), rng.uniform(0.5, 0.68)))
    # The blur is one half on the bank itself, and falls off over some ten pixels on either side.
    beach = np.clip(3 * depth - 0.3, 0, 0.75)[..., None]
    canvas += beach * (sand - canvas)
    water += np.clip(1.2 - 1.2 * depth, 0, 0.5)[..., None] * (sand - water)
    canvas += (wet.astype(np.float32) / 255)[..., None] * (water - canvas)


def _pave(canvas: np.ndarray, scene: Scene) -> None:
    """Lay the roads, each between pale shoulders."""
    asphalt = np.float32(scene.palettes["asphalt"][0])
    for widening, colour in ((3, asphalt * 1.5), (0, asphalt)):
        paved = np.zeros((scene.height, scene.width), np.uint8)
        for road in scene.roads:
            cv2.polylines(paved, [_fixed_point(road.points)], False, 255, road.width + widening, cv2.LINE_AA, _BITS)
        canvas += (paved.astype(np.float32) / 255)[..., None] * (colour - canvas)


_BITS = 4  # of the fraction of cv2's coordinates


def _fixed_point(points: tuple[aerial.Point, ...]) -> np.ndarray:
    """Points for cv2, for which whole numbers are the centres of pixels."""
    return np.round((np.array(points) - 0.5) * 2**_BITS).astype(np.int32)


# ----------------------------------------------------------------------------------------------------------- writing


def scene_of(params: Params, split: str, index: int) -> Scene:
    """Scene number `index` of a split ("train" or "val"); it does not depend on how many others are made."""
    rng = np.random.default_rng([params.seed, ("train", "val").index(split), index])
    height, width = (int(n) for n in rng.integers(params.min_size, params.max_size + 1, size=2))
    main_water = WATERS[index % len(WATERS)]
    return sample_scene(rng, height, width, main_water=main_water, min_length=params.min_length)


def write(
    out: Path,
    params: Params,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write the data set `out`: `{train,val}/{images,labelTxt,annfiles}` (see `dota_writer`).

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
            writer = DotaWriter(root, split, source="perception", gsd=0.5)
            for index in numbers:
                image, corners = render(scene_of(params, split, index))
                writer.add(image, corners, ["bridge"] * len(corners), [False] * len(corners))
            return writer.finish()

        return fill_splits({"train": params.num_train, "val": params.num_val}, fill_split, on_progress)

    return publish(out, Recipe("bridges", VERSION, asdict(params)), fill, overwrite=overwrite)
