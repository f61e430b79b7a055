"""Streets with traffic, seen from a vehicle that drives through them: images of its cameras, LiDAR scans, boxes.

Everything is exact: what a camera or the LiDAR sees is cast against the same solids that the boxes hold. Layouts:

- `nuscenes`: a data set that nuScenes' devkit opens, with six cameras and LIDAR_TOP at key frames twice a second;
- `kitti-tracking`: KITTI's tracking benchmark, ten frames a second;
- `rig`: plain folders of a camera rig, without annotations.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from .driving_world import World, sample_scene
from .folder import Recipe, Summary, publish

EXAMPLE = "python tools/make_demo_data.py driving --out data/demo/driving"

VERSION = 3  # to be raised by every change that alters the files

LAYOUTS = {"nuscenes": "nuscenes_writer", "kitti-tracking": "kitti_tracking_writer", "rig": "rig_writer"}
"""Module of this package that writes each layout."""

FRAMES_PER_SECOND = {"nuscenes": 2.0, "kitti-tracking": 10.0, "rig": 2.0}
FRAMES = {"nuscenes": 10, "kitti-tracking": 24, "rig": 10}
MOST_SCENES = {"nuscenes": (700, 150), "kitti-tracking": (17, 4), "rig": (1000, 1000)}
"""Of training and of validation: as many as the splits of the real sets name."""


@dataclass(frozen=True)
class Params:
    """The choices that determine the files."""

    num_train: int = field(default=6, metadata={"help": "number of training scenes"})
    num_val: int = field(default=2, metadata={"help": "number of validation scenes"})
    frames: int = field(default=0, metadata={"help": "frames of a scene; 0 is 10, and 24 for kitti-tracking"})
    width: int = field(default=256, metadata={"help": "width of the images in pixels; their height follows"})
    samples: int = field(default=2, metadata={"help": "rays per pixel, along each of its sides"})
    columns: int = field(default=720, metadata={"help": "beams of each ring of the LiDAR"})
    crowd: int = field(default=8, metadata={"help": "moving vehicles, parked ones and people that are tried"})
    rate: int = field(default=0, metadata={"help": "frames a second; 0 is 2, and 10 for kitti-tracking"})
    seed: int = field(default=0, metadata={"help": "another seed gives other scenes"})
    layout: str = field(default="nuscenes", metadata={"help": f"files to write: {', '.join(LAYOUTS)}"})

    def __post_init__(self):
        least = {
            "num_train": 1,
            "num_val": 1,
            "frames": 0,
            "width": 32,
            "samples": 1,
            "columns": 16,
            "crowd": 0,
            "rate": 0,
        }
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name} must be at least {value}, not {getattr(self, name)}")
        if self.frames == 1:
            raise ValueError("frames must be 0 or at least 2, not 1: objects of one frame have no velocity")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, not {self.layout!r}")
        most = MOST_SCENES[self.layout]
        if self.num_train > most[0] or self.num_val > most[1]:
            raise ValueError(
                f"the splits of {self.layout} name {most[0]} training and {most[1]} validation scenes: num_train "
                f"{self.num_train} and num_val {self.num_val} are too many"
            )

    @property
    def height(self) -> int:
        """Of the images: as on nuScenes, or as on KITTI."""
        return round(self.width * (375 / 1242 if self.layout == "kitti-tracking" else 900 / 1600))

    @property
    def times(self) -> np.ndarray:
        """(frames,) seconds at which the LiDAR's turns end."""
        return np.arange(self.frames or FRAMES[self.layout]) / (self.rate or FRAMES_PER_SECOND[self.layout])

    def worlds(self) -> Iterator[tuple[str, int, World]]:
        """Split, number within the split, and world of each scene."""
        for stream, (split, count) in enumerate((("train", self.num_train), ("val", self.num_val))):
            for number in range(count):
                rng = np.random.default_rng((self.seed, stream, number))
                yield split, number, sample_scene(rng, float(self.times[-1]), self.crowd)


def write(
    out: Path, params: Params, *, overwrite: bool = False, on_progress: Callable[[int, int], None] | None = None
) -> Summary:
    """Make the data set `out`; see :func:`~perception.datasets.synthetic.folder.publish` for what exists already."""
    writer = importlib.import_module(f"{__package__}.{LAYOUTS[params.layout]}")
    total, done = (params.num_train + params.num_val) * len(params.times), 0

    def frame_is_done() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    def fill(folder: Path) -> dict[str, dict[str, int]]:
        return writer.fill(folder, params, frame_is_done)

    return publish(out, Recipe("driving", VERSION, asdict(params)), fill, overwrite=overwrite)
