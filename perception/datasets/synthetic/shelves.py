"""Shelves behind thin bars, seen from in front: views at two resolutions, one exactly so many times the other, in LLFF
layout.

Cameras stand on an uneven grid and look along +y (z is up), through bars and wires that are no wider than a pixel of
the small images, at shelves of books, balls and pictures whose finest details only the large images show. Every ray
meets something. A large pixel is the average of 3 x 3 rays, and a small one that of the large ones on it, rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from perception.datasets.synthetic import textures
from perception.datasets.synthetic.folder import Recipe, Summary, publish
from perception.datasets.synthetic.radiance_layouts import llff_row
from perception.datasets.synthetic.raycasting import Box, Scene, Sphere, Texture, camera_rays, pixel_places

EXAMPLE = "python tools/make_demo_data.py shelves --out data/demo/shelves"

VERSION = 1  # to be raised by every change that alters the files

SAMPLES_PER_SIDE = 3  # of a large pixel
FOCAL_SHARE = 0.85  # of the images' width
HELD_OUT = 8  # every so-manieth view is a test view, by the custom of the layout
SPREAD = (0.55, 0.12, 0.4)  # half the extent of the cameras' places
FOCUS = np.array([0.0, 4.0, 0.0])  # about which the cameras look
BARS, FRONT, WALL = 2.0, 3.3, 4.9  # distances of the bars, of what stands on the shelves, and of the wall
BOARDS = (-2.1, -0.75, 0.6, 1.95)  # heights of the boards' upper faces
REACH = 2.9  # half the shelves' width
LIGHT = (0.35, -0.75, 0.55)
PERCENTILES = (0.1, 99.9)  # of a view's depths: its bounds, as LLFF takes them


@dataclass(frozen=True)
class Params:
    """The choices that determine the files."""

    views: int = field(default=20, metadata={"help": f"number of views; every {HELD_OUT}th is for testing"})
    width: int = field(default=84, metadata={"help": "width of the small images in pixels"})
    height: int = field(default=63, metadata={"help": "height of the small images in pixels"})
    scale: int = field(default=4, metadata={"help": "how many times larger the large images are"})
    seed: int = field(default=0, metadata={"help": "another seed gives other shelves and cameras"})

    def __post_init__(self):
        for name, least in (("views", 2), ("width", 8), ("height", 8), ("scale", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")

    @property
    def large(self) -> tuple[int, int]:
        """Width and height of the large images."""
        return self.width * self.scale, self.height * self.scale

    @property
    def focal(self) -> float:
        """Focal length in pixels of the large images."""
        return FOCAL_SHARE * self.large[0]


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw what stands on the shelves, and its colours."""
    wood = Texture("stripes", (0.62, 0.45, 0.3), (0.5, 0.35, 0.22), 0.11)
    wall = Texture(
        "mosaic", textures.from_hsv(rng.uniform(), 0.15, 0.9), textures.from_hsv(rng.uniform(), 0.3, 0.6), 0.11
    )
    solids: list[Sphere | Box] = [Box((0.0, WALL + 0.1, 0.0), (6.0, 0.1, 5.0), 0.0, wall)]
    for height in BOARDS:
        solids.append(Box((0.0, FRONT + 0.55, height - 0.03), (REACH, 0.55, 0.03), 0.0, wood))
    for low, high in pairwise(BOARDS):
        solids.extend(_fill_board(rng, low, high - low - 0.06))
    solids.extend(_bars(rng))
    return Scene(tuple(solids), LIGHT)


def _fill_board(rng: np.random.Generator, floor: float, room: float) -> list[Sphere | Box]:
    """Things side by side from the left end of a board to its right end."""
    things: list[Sphere | Box] = []
    place = -REACH
    while True:
        kind = rng.choice(["book", "book", "book", "ball", "picture"])
        thing, width = {"book": _book, "ball": _ball, "picture": _picture}[kind](rng, place, floor, room)
        place += width + rng.uniform(0.0, 0.04 if kind == "book" else 0.2)
        if place > REACH:
            return things
        things.append(thing)


def _book(rng: np.random.Generator, left: float, floor: float, room: float) -> tuple[Box, float]:
    half = (rng.uniform(0.05, 0.13), rng.uniform(0.25, 0.4), rng.uniform(0.3, 0.47) * room)
    texture = Texture(
        str(rng.choice(["stripes", "bars", "mosaic", "hatching"])),
        textures.vivid_colour(rng),
        textures.from_hsv(rng.uniform(), rng.uniform(0.05, 0.4), rng.uniform(0.8, 1.0)),
        rng.uniform(0.06, 0.14),
    )
    return Box((left + half[0], FRONT + half[1], floor + half[2]), half, 0.0, texture), 2 * half[0]


def _ball(rng: np.random.Generator, left: float, floor: float, room: float) -> tuple[Sphere, float]:
    radius = rng.uniform(0.16, 0.3) * room
    texture = Texture(
        str(rng.choice(["checks", "rings", "stripes"])),
        textures.vivid_colour(rng),
        textures.from_hsv(rng.uniform(), 0.2, 0.95),
        rng.uniform(0.1, 0.2),
    )
    return Sphere((left + radius, FRONT + 0.2 + radius, floor + radius), radius, texture), 2 * radius


def _picture(rng: np.random.Generator, left: float, floor: float, room: float) -> tuple[Box, float]:
    half = (rng.uniform(0.3, 0.45), 0.03, rng.uniform(0.36, 0.46) * room)
    texture = Texture(
        "zone plate", (0.97, 0.96, 0.93), textures.from_hsv(rng.uniform(), 0.8, 0.3), rng.uniform(0.17, 0.21)
    )
    return Box((left + half[0], FRONT + 0.6, floor + half[2]), half, 0.0, texture), 2 * half[0]


def _bars(rng: np.random.Generator) -> list[Box]:
    """Upright bars and level wires in front of the shelves."""
    metal = Texture("plain", textures.from_hsv(rng.uniform(), 0.5, 0.35), (0.0, 0.0, 0.0), 1.0)
    white = Texture("stripes", (0.95, 0.95, 0.92), (0.75, 0.2, 0.15), 0.25)
    upright = [
        Box((float(x), BARS, 0.0), (0.012, 0.012, 3.0), float(rng.uniform(0, np.pi / 2)), white)
        for x in np.arange(-1.8, 1.81, 0.45) + rng.uniform(-0.1, 0.1, 9)
    ]
    level = [
        Box((0.0, BARS + 0.1, float(z)), (4.0, 0.007, 0.007), 0.0, metal)
        for z in rng.uniform(-0.1, 0.1, 5) + np.arange(-2, 3) * 0.6
    ]
    return upright + level


def scene_of(params: Params) -> Scene:
    """The scene that `params` stand for."""
    return sample_scene(np.random.default_rng((params.seed, 0)))


def cameras_of(params: Params) -> np.ndarray:
    """Camera-to-world poses (views, 4, 4), OpenGL axes, in the order of a hand that goes to and fro over a grid."""
    rng = np.random.default_rng((params.seed, 1))
    columns = int(np.ceil(np.sqrt(params.views * SPREAD[0] / SPREAD[2])))
    rows = int(np.ceil(params.views / columns))
    poses = []
    for number in range(params.views):
        row, column = divmod(number, columns)
        column = column if row % 2 == 0 else columns - 1 - column
        share = np.array([(column + 0.5) / columns, rng.uniform(), (row + 0.5) / rows]) * 2 - 1
        place = (share + rng.uniform(-0.12, 0.12, 3)) * SPREAD
        poses.append(look(place, FOCUS + rng.uniform(-0.3, 0.3, 3), rng.uniform(-0.05, 0.05)))
    return np.stack(poses)


def look(place: np.ndarray, target: np.ndarray, roll: float) -> np.ndarray:
    """Pose (4, 4) of a camera that looks at `target`, turned by `roll` radians about its axis."""
    back = (place - target) / np.linalg.norm(place - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    up = np.cross(back, right)
    pose = np.eye(4)
    pose[:3, 0] = np.cos(roll) * right + np.sin(roll) * up
    pose[:3, 1] = np.cos(roll) * up - np.sin(roll) * right
    pose[:3, 2], pose[:3, 3] = back, place
    return pose


def render(scene: Scene, pose: np.ndarray, params: Params) -> tuple[np.ndarray, np.ndarray]:
    """A large image (H, W, 3), uint8, and the depth (H, W), float32, along the viewing axis at its pixels' centres."""
    width, height = params.large
    hits = scene.cast(*camera_rays(pose, params.large, params.focal, pixel_places(SAMPLES_PER_SIDE)))
    colour = hits.colours.reshape(height, width, -1, 3).mean(2)
    centre = (SAMPLES_PER_SIDE**2 - 1) // 2  # an odd number of samples has one in the middle
    depth = hits.parameter.reshape(height, width, -1)[..., centre]
    return np.round(colour * 255).astype(np.uint8), depth.astype(np.float32)


def shrink(image: np.ndarray, scale: int) -> np.ndarray:
    """The rounded averages of squares of pixels of an image (H, W, 3), uint8."""
    height, width, channels = image.shape
    squares = image.reshape(height // scale, scale, width // scale, scale, channels)
    return np.round(squares.mean((1, 3))).astype(np.uint8)


def write(
    out: Path, params: Params, *, overwrite: bool = False, on_progress: Callable[[int, int], None] | None = None
) -> Summary:
    """Make the data set `out`; see :func:`~perception.datasets.synthetic.folder.publish` for what exists already.

    `images` holds the large images, `images_SCALE` the small ones, `poses_bounds.npy` poses and bounds, and
    `geometry/image_NUMBER.npz` the `depth` of the large ones.
    """
    scene, poses = scene_of(params), cameras_of(params)

    def fill(folder: Path) -> dict[str, dict[str, int]]:
        large, small = folder / "images", folder / f"images_{params.scale}"
        for made in (large, small, folder / "geometry"):
            made.mkdir()
        rows = []
        for number, pose in enumerate(poses):
            name = f"image_{number:03d}"
            image, depth = render(scene, pose, params)
            Image.fromarray(image).save(large / f"{name}.png")
            Image.fromarray(shrink(image, params.scale)).save(small / f"{name}.png")
            np.savez_compressed(folder / f"geometry/{name}.npz", depth=depth)
            rows.append(llff_row(pose, params.large, params.focal, np.percentile(depth, PERCENTILES)))
            if on_progress is not None:
                on_progress(number + 1, params.views)
        np.save(folder / "poses_bounds.npy", np.stack(rows))
        tests = len(range(0, params.views, HELD_OUT))
        return {"train": {"images": params.views - tests}, "test": {"images": tests}}

    return publish(out, Recipe("shelves", VERSION, asdict(params)), fill, overwrite=overwrite)
