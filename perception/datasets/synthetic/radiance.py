"""Solids on a slab, seen from all around: images with alpha, exact depth and normals, in the layouts of radiance-field
sets.

Spheres and boxes with procedural textures stand on a thin square slab within [-1, 1]^3. Cameras lie on a sphere of
radius 4 around the origin and look at it, with the field of view of the synthetic NeRF scenes, so that near 2 and far 6
hold everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from perception.datasets.synthetic import textures
from perception.datasets.synthetic.folder import Recipe, Summary, publish
from perception.datasets.synthetic.radiance_layouts import LAYOUTS, View
from perception.datasets.synthetic.raycasting import Box, Scene, Sphere, Texture, camera_rays, pixel_places

EXAMPLE = "python tools/make_demo_data.py radiance --out data/demo/radiance"

VERSION = 1  # to be raised by every change that alters the files

CAMERA_DISTANCE = 4.0
CAMERA_ANGLE_X = 0.6911112  # horizontal field of view in radians, that of the synthetic NeRF scenes
SAMPLES_PER_SIDE = 3  # of a pixel
SLAB_HALF = (0.85, 0.85, 0.04)
FLOOR = -0.5  # height of the slab's upper face
KINDS = ("plain", "stripes", "rings", "checks", "gradient")  # of textures that objects have
ELEVATION = (np.radians(8), np.radians(70))  # of cameras above the horizon


@dataclass(frozen=True)
class Params:
    """The choices that determine the files."""

    num_train: int = field(default=40, metadata={"help": "number of training views"})
    num_val: int = field(default=4, metadata={"help": "number of validation views"})
    num_test: int = field(default=8, metadata={"help": "number of test views"})
    size: int = field(default=100, metadata={"help": "image height and width in pixels"})
    num_objects: int = field(default=5, metadata={"help": "number of spheres and boxes"})
    seed: int = field(default=0, metadata={"help": "another seed gives another scene and other cameras"})
    layout: str = field(default="blender", metadata={"help": f"files to write: {', '.join(LAYOUTS)}"})

    def __post_init__(self):
        for name, least in (("num_train", 1), ("num_val", 1), ("num_test", 1), ("size", 8), ("num_objects", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.num_objects > 12:
            raise ValueError(f"there is room for 12 objects on the slab, not {self.num_objects}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, not {self.layout!r}")

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return 0.5 * self.size / np.tan(0.5 * CAMERA_ANGLE_X)


class Rendering(NamedTuple):
    """One view."""

    rgba: np.ndarray  # (H, W, 4) uint8, colours not multiplied with alpha
    depth: np.ndarray  # (H, W) float32 along the viewing axis at pixel centres, inf for the background
    normals: np.ndarray  # (H, W, 3) float32 unit vectors in the scene's frame, 0 for the background


def sample_scene(rng: np.random.Generator, num_objects: int) -> Scene:
    """Draw a slab and objects that stand on it without touching each other."""
    floor_texture = Texture("checks", (0.82, 0.8, 0.76), (0.5, 0.55, 0.6), 0.8)
    solids: list[Sphere | Box] = [Box((0.0, 0.0, FLOOR - SLAB_HALF[2]), SLAB_HALF, 0.0, floor_texture)]
    places: list[tuple[float, float, float]] = []  # x, y and reach of what stands already
    largest = 0.42 if num_objects <= 5 else 0.24
    while len(solids) <= num_objects:
        size = rng.uniform(0.5, 1) * largest
        x, y = rng.uniform(-0.8 + size, 0.8 - size, 2)
        if any(np.hypot(x - u, y - v) < size + reach + 0.02 for u, v, reach in places):
            largest *= 0.98
            continue
        places.append((x, y, size))
        solids.append(_draw_solid(rng, float(x), float(y), size))
    return Scene(tuple(solids))


def _draw_solid(rng: np.random.Generator, x: float, y: float, size: float) -> Sphere | Box:
    first = textures.vivid_colour(rng)
    second = textures.from_hsv(rng.uniform(), rng.uniform(0.2, 0.7), rng.uniform(0.75, 1.0))
    kind = KINDS[rng.integers(len(KINDS))]
    texture = Texture(kind, first, second, size * rng.uniform(0.8, 1.2))
    if rng.uniform() < 0.5:
        return Sphere((x, y, FLOOR + size), size, texture)
    half = size / np.sqrt(2) * rng.uniform(0.7, 1, 2)
    height = size * rng.uniform(0.6, 1.3)
    return Box((x, y, FLOOR + height), (half[0], half[1], height), rng.uniform(0, np.pi), texture)


def scene_of(params: Params) -> Scene:
    """The scene that `params` stand for."""
    return sample_scene(_generator(params, 0), params.num_objects)


def cameras_of(params: Params) -> dict[str, np.ndarray]:
    """Camera-to-world poses (views, 4, 4) of each split: OpenGL axes (x right, y up, looking along -z)."""
    counts = {"train": params.num_train, "val": params.num_val, "test": params.num_test}
    return {
        split: np.stack([look_at_origin(direction) for direction in _directions(_generator(params, number + 1), count)])
        for number, (split, count) in enumerate(counts.items())
    }


def _generator(params: Params, stream: int) -> np.random.Generator:
    return np.random.default_rng((params.seed, stream))


def _directions(rng: np.random.Generator, count: int) -> np.ndarray:
    """Unit vectors (count, 3) spread evenly over the upper hemisphere (a jittered Fibonacci spiral)."""
    low, high = np.sin(ELEVATION)
    height = low + (high - low) * (np.arange(count) + rng.uniform(0.1, 0.9, count)) / count
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(count) + rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.1, count)
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], -1)


def look_at_origin(direction: np.ndarray) -> np.ndarray:
    """Pose (4, 4) of a camera at `CAMERA_DISTANCE` in a direction (3,) from the origin, upright."""
    right = np.cross([0.0, 0.0, 1.0], direction)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = right, np.cross(direction, right), direction
    pose[:3, 3] = CAMERA_DISTANCE * direction
    return pose


def rays(pose: np.ndarray, size: int, focal: float, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rays through points of all pixels of a square image; see :func:`~.raycasting.camera_rays`."""
    return camera_rays(pose, (size, size), focal, offsets)


def render(scene: Scene, pose: np.ndarray, size: int, focal: float) -> Rendering:
    """Cast rays through every pixel of a view: 3 x 3 for colour and alpha, the centre for depth and normals."""
    offsets = pixel_places(SAMPLES_PER_SIDE)
    hits = scene.cast(*rays(pose, size, focal, offsets))
    covered = np.isfinite(hits.parameter).reshape(size, size, -1)  # (H, W, samples)
    colour = hits.colours.reshape(size, size, -1, 3).sum(2) / np.maximum(covered.sum(2), 1)[..., None]
    rgba = np.concatenate([colour, covered.mean(2)[..., None]], -1)
    centre = (len(offsets) - 1) // 2  # an odd number of samples has one in the middle
    return Rendering(
        np.round(rgba * 255).astype(np.uint8),
        hits.parameter.reshape(size, size, -1)[..., centre].astype(np.float32),
        hits.normals.reshape(size, size, -1, 3)[..., centre, :].astype(np.float32),
    )


def write(
    out: Path, params: Params, *, overwrite: bool = False, on_progress: Callable[[int, int], None] | None = None
) -> Summary:
    """Make the data set `out`; see :func:`~perception.datasets.synthetic.folder.publish` for what exists already.

    Beside the files of the layout, `geometry/SPLIT_NUMBER.npz` holds `depth` and `normals` of each view.
    """
    scene, poses = scene_of(params), cameras_of(params)
    total = sum(map(len, poses.values()))

    def fill(folder: Path) -> dict[str, dict[str, int]]:
        layout, done = LAYOUTS[params.layout](folder, params.size, params.focal, scene.bounds()), 0
        (folder / "geometry").mkdir()
        for split, split_poses in poses.items():
            for number, pose in enumerate(split_poses):
                rendering = render(scene, pose, params.size, params.focal)
                path = layout.add(View(split, number, pose))
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rendering.rgba).save(path)
                np.savez_compressed(
                    folder / "geometry" / f"{split}_{number:03d}.npz", depth=rendering.depth, normals=rendering.normals
                )
                done += 1
                if on_progress is not None:
                    on_progress(done, total)
        layout.finish()
        return {split: {"images": len(split_poses)} for split, split_poses in poses.items()}

    return publish(out, Recipe("radiance", VERSION, asdict(params)), fill, overwrite=overwrite)
