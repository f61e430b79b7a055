"""Things that move before a wall, seen by fixed cameras at the same moments: a multi-view video with poses.

Balls fly in circles and swing, a box turns, a figure walks to and fro; wall, floor and shelves stay. Cameras stand on a
rig about 1.2 wide and look along +y (z is up); camera 0 is near its middle. Every ray meets something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from perception.datasets.synthetic import textures
from perception.datasets.synthetic.folder import Recipe, Summary, publish
from perception.datasets.synthetic.radiance_layouts import llff_row
from perception.datasets.synthetic.raycasting import Box, Scene, Sphere, Texture, camera_rays, pixel_places
from perception.datasets.synthetic.shelves import PERCENTILES, look

EXAMPLE = "python tools/make_demo_data.py juggling --out data/demo/juggling"

VERSION = 1  # to be raised by every change that alters the files

SAMPLES_PER_SIDE = 3  # of a pixel
FOCAL_SHARE = 0.8  # of the images' width
FOCUS = np.array([0.0, 4.0, 0.0])  # about which the cameras look
RIG = (0.6, 0.05, 0.35)  # half the extent of the cameras' places
WALL, FLOOR = 5.2, -1.5
LIGHT = (0.35, -0.75, 0.55)
LAYOUTS = ("folders", "videos")


@dataclass(frozen=True)
class Params:
    """The choices that determine the files."""

    cameras: int = field(default=12, metadata={"help": "number of cameras; cam00 is for testing"})
    frames: int = field(default=12, metadata={"help": "number of frames"})
    width: int = field(default=96, metadata={"help": "width of the pictures in pixels"})
    height: int = field(default=64, metadata={"help": "height of the pictures in pixels"})
    fps: int = field(default=30, metadata={"help": "frames a second"})
    seed: int = field(default=0, metadata={"help": "another seed gives other things and cameras"})
    layout: str = field(
        default="folders", metadata={"help": "folders (0000/images/cam00.png) or videos (cam00.mp4, lossless)"}
    )

    def __post_init__(self):
        for name, least in (("cameras", 2), ("frames", 2), ("width", 16), ("height", 16), ("fps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, not {self.layout!r}")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures."""
        return self.width, self.height

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return FOCAL_SHARE * self.width


@dataclass(frozen=True)
class World:
    """What stands still, and what moves as a function of time."""

    still: tuple[Sphere | Box, ...]
    balls: tuple[Texture, ...]
    box: Texture
    figure: tuple[Texture, Texture]

    def at(self, time: float) -> Scene:
        """The scene at a time in seconds."""
        moving: list[Sphere | Box] = []
        for number, texture in enumerate(self.balls):
            angle = 2 * np.pi * (0.9 * time + number / len(self.balls))
            centre = (0.75 * np.cos(angle) - 0.1, 3.0 + 0.15 * np.sin(angle), 0.3 + 0.45 * np.sin(angle))
            moving.append(Sphere(centre, 0.22, texture))
        moving.append(Box((1.15, 3.6, -0.95), (0.3, 0.3, 0.4), 1.2 * time + 0.3, self.box))
        walk = -1.2 + 0.35 * np.sin(2 * np.pi * 0.5 * time)
        body, head = self.figure
        moving.append(Box((walk, 3.7, -0.95), (0.2, 0.15, 0.5), 0.2, body))
        moving.append(Sphere((walk, 3.7, -0.22), 0.2, head))
        return Scene((*self.still, *moving), LIGHT)


def sample_scene(rng: np.random.Generator) -> World:
    """Draw what is in the scene."""
    wall = Texture(
        "mosaic", textures.from_hsv(rng.uniform(), 0.15, 0.9), textures.from_hsv(rng.uniform(), 0.3, 0.6), 0.6
    )
    floor = Texture("checks", (0.82, 0.8, 0.76), (0.5, 0.55, 0.6), 0.9)
    wood = Texture("stripes", (0.62, 0.45, 0.3), (0.5, 0.35, 0.22), 0.5)
    still = [
        Box((0.0, WALL + 0.1, 0.0), (8.0, 0.1, 6.0), 0.0, wall),
        Box((0.0, 4.5, FLOOR - 0.1), (8.0, 3.5, 0.1), 0.0, floor),
    ]
    still += [Box((side * 2.0, 4.6, -0.5), (0.35, 0.35, 1.0), 0.2 * side, wood) for side in (-1, 1)]

    def vivid(kind: str, period: float) -> Texture:
        return Texture(kind, textures.vivid_colour(rng), textures.from_hsv(rng.uniform(), 0.2, 0.95), period)

    balls = tuple(vivid("stripes", 0.25) for _ in range(3))
    return World(tuple(still), balls, vivid("bars", 0.3), (vivid("hatching", 0.4), vivid("plain", 1.0)))


def scene_of(params: Params) -> World:
    """The world that `params` stand for."""
    return sample_scene(np.random.default_rng((params.seed, 0)))


def cameras_of(params: Params) -> np.ndarray:
    """Camera-to-world poses (cameras, 4, 4), OpenGL axes: one near the middle of the rig, the others on two rings."""
    rng = np.random.default_rng((params.seed, 1))
    others = params.cameras - 1
    poses = []
    for number in range(params.cameras):
        angle = 2 * np.pi * (number - 1) / max(others, 1)
        ring = 0.0 if number == 0 else (1.0, 0.65)[number % 2]
        share = np.array([ring * np.cos(angle), rng.uniform(-1, 1), ring * np.sin(angle)])
        place = (share + rng.uniform(-0.05, 0.05, 3)) * RIG
        poses.append(look(place, FOCUS + rng.uniform(-0.15, 0.15, 3), rng.uniform(-0.03, 0.03)))
    return np.stack(poses)


def render(scene: Scene, pose: np.ndarray, params: Params) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H, W, 3), uint8, and the depth (H, W) along the viewing axis at its pixels' centres."""
    hits = scene.cast(*camera_rays(pose, params.size, params.focal, pixel_places(SAMPLES_PER_SIDE)))
    colour = hits.colours.reshape(params.height, params.width, -1, 3).mean(2)
    centre = (SAMPLES_PER_SIDE**2 - 1) // 2  # an odd number of samples has one in the middle
    return np.round(colour * 255).astype(np.uint8), hits.parameter.reshape(params.height, params.width, -1)[..., centre]


def write(
    out: Path, params: Params, *, overwrite: bool = False, on_progress: Callable[[int, int], None] | None = None
) -> Summary:
    """Make the data set `out`; see :func:`~perception.datasets.synthetic.folder.publish` for what exists already.

    `poses_bounds.npy` holds poses and bounds of all cameras.
    """
    world, poses = scene_of(params), cameras_of(params)
    total = params.frames * params.cameras

    def fill(folder: Path) -> dict[str, dict[str, int]]:
        nearest, farthest = np.full(params.cameras, np.inf), np.zeros(params.cameras)
        sink = _Videos(folder, params) if params.layout == "videos" else _Folders(folder)
        for frame in range(params.frames):
            scene = world.at(frame / params.fps)
            for camera, pose in enumerate(poses):
                picture, depth = render(scene, pose, params)
                low, high = np.percentile(depth, PERCENTILES)
                nearest[camera], farthest[camera] = min(low, nearest[camera]), max(high, farthest[camera])
                sink.add(frame, camera, picture)
                if on_progress is not None:
                    on_progress(frame * params.cameras + camera + 1, total)
        sink.close()
        bounds = zip(nearest, farthest)
        rows = [llff_row(pose, params.size, params.focal, np.array(bound)) for pose, bound in zip(poses, bounds)]
        np.save(folder / "poses_bounds.npy", np.stack(rows))
        return {
            "train": {"cameras": params.cameras - 1, "frames": params.frames},
            "test": {"cameras": 1, "frames": params.frames},
        }

    return publish(out, Recipe("juggling", VERSION, asdict(params)), fill, overwrite=overwrite)


class _Folders:
    def __init__(self, folder: Path):
        self.folder = folder

    def add(self, frame: int, camera: int, picture: np.ndarray) -> None:
        images = self.folder / f"{frame:04d}/images"
        images.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(images / f"cam{camera:02d}.png")

    def close(self) -> None:
        """Everything has been written."""


class _Videos:
    def __init__(self, folder: Path, params: Params):
        import av  # only where videos are asked for

        self.av, self.files = av, []
        for camera in range(params.cameras):
            file = av.open(str(folder / f"cam{camera:02d}.mp4"), "w")
            # Lossless, so that both layouts have the same pixels.
            stream = file.add_stream("libx264rgb", rate=params.fps, options={"qp": "0", "preset": "medium"})
            stream.width, stream.height, stream.pix_fmt = params.width, params.height, "rgb24"
            self.files.append((file, stream))

    def add(self, frame: int, camera: int, picture: np.ndarray) -> None:
        file, stream = self.files[camera]
        image = self.av.VideoFrame.from_ndarray(picture, format="rgb24")
        image.pts = frame
        file.mux(stream.encode(image))

    def close(self) -> None:
        for file, stream in self.files:
            file.mux(stream.encode())
            file.close()
