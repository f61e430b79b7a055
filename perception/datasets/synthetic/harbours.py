"""Aerial pictures with rotated boxes in DOTA's format, or instance masks in COCO's: harbours, aprons, car parks, roads.

A scene is divided into rectangular zones, all turned by one angle, each with one kind of layout. Moored ships, parked
vehicles and planes stand in rows so tight that their upright boxes overlap. Tanks and roundabouts look the same from
every side; as in DOTA their boxes are upright. Boxes are those of whole objects, also where a tree or the picture's
border hides a part; objects that are mostly hidden or tiny are flagged as difficult. Masks are what one sees of an
object. A picture of any size can be made; objects keep their size in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from perception.datasets.synthetic import aerial, outlines, textures
from perception.datasets.synthetic.aerial import AerialObject, Palette, Patch, Point, Tree
from perception.datasets.synthetic.coco_writer import CocoWriter
from perception.datasets.synthetic.dota_writer import DotaWriter
from perception.datasets.synthetic.folder import Recipe, Summary, fill_splits, publish
from perception.datasets.synthetic.harbour_layouts import LAYOUTS, Zone
from perception.datasets.synthetic.outlines import Stamp
from perception.datasets.synthetic.params import PictureParams

HARBOUR_CLASSES = ("plane", "small-vehicle", "large-vehicle", "ship", "storage-tank", "roundabout", "harbor")
"""Class names in label order: classes of DOTA, in DOTA's order."""

METAINFO = {
    "classes": HARBOUR_CLASSES,
    "palette": [
        *[(165, 42, 42), (138, 43, 226), (255, 128, 0), (255, 0, 255)],
        *[(0, 51, 153), (0, 139, 139), (255, 250, 205)],
    ],
}
"""What `metainfo` of an MMRotate data set over these files is."""

EXAMPLE = "python tools/make_demo_data.py harbours --out data/demo/harbours --num-train 160 --num-val 40"

VERSION = 1  # to be raised by every change that alters the files

ZONE_SIDE = (120.0, 250.0)  # pixels
EASY_VISIBLE = 0.65  # share of an object's area that shows, below which it is difficult
EASY_LENGTH = 12.0  # pixels of an object's longer side, below which it is difficult


@dataclass(frozen=True)
class Params(PictureParams):
    """The choices that determine the files."""

    min_size: int = field(default=192, metadata={"help": "shortest image side in pixels"})
    format: str = field(default="dota", metadata={"help": "labels: dota (rotated boxes) or coco (instance masks)"})

    def __post_init__(self):
        super().__post_init__()
        if self.format not in _WRITERS:
            raise ValueError(f"format must be one of {', '.join(_WRITERS)}, not {self.format!r}")


@dataclass(frozen=True)
class Scene:
    """Everything that is in one picture, each list from bottom to top; `light` in radians clockwise from +x."""

    height: int
    width: int
    light: float
    grain: float
    texture_seed: int
    palettes: dict[str, Palette]
    patches: tuple[Patch, ...]
    objects: tuple[AerialObject, ...]
    trees: tuple[Tree, ...]


# ---------------------------------------------------------------------------------------------------------- sampling


def sample_scene(rng: np.random.Generator, height: int, width: int, *, first_layout: str | None = None) -> Scene:
    """Draw a scene.

    Args:
        first_layout: the layout of the zone in the middle, for a set in which every class has to occur.
    """
    palettes = aerial.sample_palettes(rng)
    light, angle = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
    reach = float(np.hypot(height, width)) / 2
    patches: list[Patch] = []
    objects: list[AerialObject] = []
    trees: list[Tree] = []
    for left, top, right, bottom in _divide(rng, -reach, -reach, reach, reach):
        middle = left <= 0 < right and top <= 0 < bottom
        layout = first_layout if middle and first_layout else list(LAYOUTS)[rng.integers(len(LAYOUTS))]
        centre = _turned((left + right) / 2, (top + bottom) / 2, angle)
        zone = Zone(
            centre=(centre[0] + width / 2, centre[1] + height / 2),
            angle=angle,
            length=right - left,
            width=bottom - top,
            palettes=palettes,
        ).quarter_turned(int(rng.integers(4)))
        if _misses(zone, height, width):
            continue
        LAYOUTS[layout](rng, zone)
        patches += zone.patches
        objects += [item for item in zone.objects if _contains(item.centre, height, width)]
        trees += zone.trees
    return Scene(
        height=height,
        width=width,
        light=light,
        grain=rng.uniform(0.005, 0.02),
        texture_seed=int(rng.integers(2**32)),
        palettes=palettes,
        patches=tuple(patches),
        objects=tuple(objects),
        trees=tuple(trees),
    )


def _divide(rng: np.random.Generator, left: float, top: float, right: float, bottom: float) -> list[tuple[float, ...]]:
    """Cut a rectangle into zones whose sides are `ZONE_SIDE` long."""
    shortest, longest = ZONE_SIDE
    width, height = right - left, bottom - top
    if max(width, height) <= longest:
        return [(left, top, right, bottom)]
    if width >= height:
        cut = rng.uniform(left + shortest, right - shortest)
        return _divide(rng, left, top, cut, bottom) + _divide(rng, cut, top, right, bottom)
    cut = rng.uniform(top + shortest, bottom - shortest)
    return _divide(rng, left, top, right, cut) + _divide(rng, left, cut, right, bottom)


def _turned(x: float, y: float, angle: float) -> Point:
    cos, sin = np.cos(angle), np.sin(angle)
    return float(x * cos - y * sin), float(x * sin + y * cos)


def _contains(point: Point, height: int, width: int) -> bool:
    return 0 <= point[0] < width and 0 <= point[1] < height


def _misses(zone: Zone, height: int, width: int) -> bool:
    corners = np.array(zone.corners())
    return bool((corners.max(axis=0) < 0).any() or (corners.min(axis=0) > (width, height)).any())


# --------------------------------------------------------------------------------------------------------- rendering


def render(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene.

    Returns:
        The picture, `uint8` `[H, W, 3]` RGB, and the share of each object's area that shows, `[N]`.
    """
    rng = np.random.default_rng(scene.texture_seed)
    canvas = aerial.ground(rng, scene.height, scene.width, "land", scene.palettes["land"])
    for patch in scene.patches:
        aerial.draw_patch(canvas, patch, scene.palettes)
    stamps = [aerial.draw_object(canvas, item, scene.light) for item in scene.objects]
    crowns = [aerial.draw_tree(canvas, tree, scene.light) for tree in scene.trees]
    canvas = textures.add_grain(rng, canvas, scene.grain)
    image = (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)
    return image, _visible_shares(scene.height, scene.width, stamps, crowns)


def _visible_shares(height: int, width: int, stamps: list[Stamp], crowns: list[Stamp]) -> np.ndarray:
    """What lies neither beyond the border nor under a tree; objects do not hide one another."""
    uncovered = np.ones((height, width), np.float32)
    for crown in crowns:
        picture, own = crown.clip(height, width)
        uncovered[picture] *= 1 - crown.coverage[own]
    shares = []
    for stamp in stamps:
        picture, own = stamp.clip(height, width)
        shares.append((stamp.coverage[own] * uncovered[picture]).sum() / stamp.coverage.sum())
    return np.array(shares)


def visible_masks(scene: Scene) -> Iterator[np.ndarray]:
    """Which pixels show each object, bool `[H, W]`, in the order of the scene: those that it covers by half or more,
    and that nothing above it covers so.
    """
    owner = np.full((scene.height, scene.width), -1, np.int32)
    covered = [aerial.body_of(item) for item in scene.objects] + [aerial.crown_of(tree) for tree in scene.trees]
    for index, outline in enumerate(covered):
        stamp = outlines.rasterise(outline)
        picture, own = stamp.clip(scene.height, scene.width)
        owner[picture][stamp.coverage[own] >= 0.5] = index
    return (owner == index for index in range(len(scene.objects)))


# ----------------------------------------------------------------------------------------------------------- writing


def scene_of(params: Params, split: str, index: int) -> Scene:
    """Scene number `index` of a split ("train" or "val"); it does not depend on how many others are made."""
    rng = np.random.default_rng([params.seed, ("train", "val").index(split), index])
    height, width = (int(n) for n in rng.integers(params.min_size, params.max_size + 1, size=2))
    return sample_scene(rng, height, width, first_layout=list(LAYOUTS)[index % len(LAYOUTS)])


def write(
    out: Path,
    params: Params,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write the data set `out`: `{train,val}/{images,labelTxt,annfiles}` (see `dota_writer`), or
    `images/{train,val}/*.jpg` and `annotations/instances_{train,val}.json` (`coco_writer`).

    Nothing is visible at `out` before everything is there. A complete set of the same parameters is left as it is.
    COCO's format has no difficult objects: these are crowds, which training and evaluation leave out alike, and what
    is hidden altogether is not listed.

    Args:
        overwrite: replace a generated set that has other parameters or lost files.
        on_progress: called with the number of finished images and their total.

    Raises:
        FileExistsError: `out` holds something else.
        OSError: a file cannot be written.
    """

    def fill(root: Path) -> dict[str, dict[str, int]]:
        def fill_split(split: str, numbers: Iterator[int]) -> dict[str, int]:
            return _WRITERS[params.format](root, split, (scene_of(params, split, index) for index in numbers))

        return fill_splits({"train": params.num_train, "val": params.num_val}, fill_split, on_progress)

    values = asdict(params)
    if params.format == "dota":  # as sets were recorded before there was a choice
        del values["format"]
    return publish(out, Recipe("harbours", VERSION, values), fill, overwrite=overwrite)


def _write_boxes(root: Path, split: str, scenes: Iterator[Scene]) -> dict[str, int]:
    writer = DotaWriter(root, split, source="perception", gsd=0.5)
    for scene in scenes:
        image, visible = render(scene)
        corners = np.array([aerial.corners_of(item) for item in scene.objects]).reshape(-1, 4, 2)
        writer.add(image, corners, [item.kind for item in scene.objects], _difficult(scene, visible))
    return writer.finish()


def _write_masks(root: Path, split: str, scenes: Iterator[Scene]) -> dict[str, int]:
    writer = CocoWriter(
        root, split, HARBOUR_CLASSES, description="Synthetic aerial scenes with exact masks", supercategory="aerial"
    )
    for scene in scenes:
        image, visible = render(scene)
        labels = [HARBOUR_CLASSES.index(item.kind) for item in scene.objects]
        writer.add(image, visible_masks(scene), labels, _difficult(scene, visible))
    return writer.finish()


def _difficult(scene: Scene, visible: np.ndarray) -> Sequence[bool]:
    lengths = np.array([max(item.length, item.width) for item in scene.objects])
    return (visible < EASY_VISIBLE) | (lengths < EASY_LENGTH)


_WRITERS: dict[str, Callable[[Path, str, Iterator[Scene]], dict[str, int]]] = {
    "dota": _write_boxes,
    "coco": _write_masks,
}
