"""Several small scenes for fields that are shared by all of them: some to train on, others never seen in training.

Solids from all around (family `radiance`) in Blender layout and shelves from in front (family `shelves`) in LLFF
layout, in turn. `train` holds the scenes to train on and `unseen` the others, each a folder that any method reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from perception.datasets.synthetic import radiance, shelves
from perception.datasets.synthetic.folder import Recipe, Summary, publish

EXAMPLE = "python tools/make_demo_data.py scenes --out data/demo/scenes"

VERSION = 1  # to be raised by every change that alters the files

TEST_VIEWS = 4  # of scenes of solids


@dataclass(frozen=True)
class Params:
    """The choices that determine the files."""

    num_train: int = field(default=8, metadata={"help": "number of scenes to train on"})
    num_unseen: int = field(default=2, metadata={"help": "number of other scenes"})
    views: int = field(
        default=32, metadata={"help": "training views of a scene of solids; shelves have as many in all"}
    )
    size: int = field(default=64, metadata={"help": "height of the images in pixels"})
    seed: int = field(default=0, metadata={"help": "another seed gives other scenes"})

    def __post_init__(self):
        for name, least in (("num_train", 1), ("num_unseen", 1), ("views", 4), ("size", 17)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


def plan(params: Params) -> dict[str, radiance.Params | shelves.Params]:
    """The scenes by their folders, and what each is made from."""
    scenes: dict[str, radiance.Params | shelves.Params] = {}
    for number in range(params.num_train + params.num_unseen):
        seed = 1000 * params.seed + number
        group = "train" if number < params.num_train else "unseen"
        if number % 2 == 0:
            scenes[f"{group}/solids_{number:02d}"] = radiance.Params(
                num_train=params.views, num_val=1, num_test=TEST_VIEWS, size=params.size, seed=seed
            )
        else:
            half = params.size // 2  # the large images are those of the given height
            scenes[f"{group}/shelves_{number:02d}"] = shelves.Params(
                views=params.views, width=max(8, half * 4 // 3), height=max(8, half), scale=2, seed=seed
            )
    return scenes


def write(
    out: Path, params: Params, *, overwrite: bool = False, on_progress: Callable[[int, int], None] | None = None
) -> Summary:
    """Make the data set `out`; see :func:`~perception.datasets.synthetic.folder.publish` for what exists already."""
    scenes = plan(params)

    def fill(folder: Path) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for done, (name, own) in enumerate(scenes.items()):
            family = radiance if isinstance(own, radiance.Params) else shelves
            summary = family.write(folder / name, own)
            images = sum(split["images"] for split in summary.counts.values())
            count = counts.setdefault(name.partition("/")[0], {"scenes": 0, "images": 0})
            count["scenes"] += 1
            count["images"] += images
            if on_progress is not None:
                on_progress(done + 1, len(scenes))
        return counts

    return publish(out, Recipe("scenes", VERSION, asdict(params)), fill, overwrite=overwrite)
