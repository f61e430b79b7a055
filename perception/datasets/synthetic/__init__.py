"""Procedural data sets with exact ground truth, written in the formats of real ones.

A *family* is one module of this package. It follows one pattern, of which `shapes` is the example::

    class Params                # frozen dataclass: every choice that changes the files, checked in __post_init__
    def sample_scene(rng, ...)  # what is in the scene, as plain dataclasses: the only place that draws at random
    def render(scene)           # a pure function of the scene: pixels and exact ground truth
    def write(out, params, *, overwrite=False, on_progress=None) -> Summary

`textures` (backgrounds, fills, colours), `outlines` (polygons to antialiased coverage), `painting` (laying these onto
a picture), `params`, `folder` (all-or-nothing writing) and the format writers (`coco_writer`, `dota_writer`) are shared
by the families. `tools/make_demo_data.py` turns the fields of `Params` into command-line options, so that a new family
needs its module and one line in `FAMILIES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from perception.datasets.synthetic.folder import Summary

FAMILIES: dict[str, str] = {
    "shapes": "2D shapes on textured backgrounds: boxes and instance masks in COCO format",
    "regions": "grounds with small and thin things on them: label maps in the layout of ADE20K",
    "harbours": "aerial scenes with ships, planes, vehicles, tanks: rotated boxes in DOTA format, or masks in COCO's",
    "bridges": "large aerial scenes with rivers and bridges of every length: rotated boxes in DOTA format",
    "cities": "towns from above and from the street: panoramas and satellite tiles in the layout of VIGOR",
    "driving": "streets with traffic: images of camera rigs, LiDAR and boxes in the formats of nuScenes and KITTI",
    "radiance": "solids seen from all around: RGBA views, exact depth and normals, in Blender and other layouts",
    "scenes": "small scenes, some to train on, some unseen: solids in Blender layout, shelves in LLFF layout",
    "juggling": "things that move before a wall: a multi-view video of fixed cameras, as folders of frames or videos",
    "glossy": "glossy and matt solids under three lights, with exact materials and normals, in the layout of TensoIR",
    "shelves": "shelves behind thin bars, seen from in front: views at two exact resolutions in LLFF layout",
}
"""Name of each family (its module in this package) and what it holds, in one line."""


class Family(Protocol):
    """What a family module offers.

    `Params` is a frozen dataclass whose fields all have defaults and a `help` entry in their metadata; it raises
    `ValueError` for values that make no sense. `EXAMPLE` is one command line. `on_progress` receives the number of
    finished files and their total.
    """

    Params: type[Any]
    EXAMPLE: str

    @staticmethod
    def write(
        out: Path, params: Any, *, overwrite: bool = False, on_progress: Callable[[int, int], None] | None = None
    ) -> Summary: ...


def load_family(name: str) -> Family:
    """Import the family `name`. Other families, and what they depend on, are not imported.

    Raises:
        ValueError: there is no such family.
    """
    if name not in FAMILIES:
        raise ValueError(f"no synthetic data family {name!r}; there are: {', '.join(FAMILIES)}")
    return importlib.import_module(f"{__name__}.{name}")
