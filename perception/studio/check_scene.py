"""The command `check-scene`: what a run would say of a scene before its first step, and a picture of its cameras."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

import torch
import tyro
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig

from perception.engine.errors import UserError, run_cli
from perception.studio.findings import Findings
from perception.studio.parsers import read_by
from perception.studio.scene_checks import PLAIN_USE, SceneReport, SceneUse, check_scene
from perception.studio.scene_picture import draw_scene

METHODS = "nerfstudio.method_configs"  # the group of entry points by which nerfstudio finds methods


@dataclass
class CheckScene:
    """Look at all images, masks and cameras of a scene as a run does before its first step, and draw the cameras.

    Name the data parser at the end, with its options, as for ns-train: check-scene --data SCENE colmap
    --downscale-factor 2. Exit status 1 where something is wrong.
    """

    data: Path
    """Folder of the scene."""
    out: Path = Path("scene.png")
    """Picture to write."""
    method: str = "vqrf"
    """Method that will be trained: what it asks of a scene is checked."""
    near: float | None = None
    """Smallest depth, as --pipeline.model.near of the method."""
    far: float | None = None
    """Largest depth, as --pipeline.model.far of the method."""
    background: Literal["white", "black"] = "white"
    """As --pipeline.datamanager.background of the method."""
    allow_opaque: bool = False
    """As --pipeline.datamanager.allow-opaque of the method."""
    dataparser: AnnotatedDataParserUnion = field(default_factory=BlenderDataParserConfig)
    """Data parser that reads the scene."""


def main() -> None:
    """Entry point of the console script."""
    run_cli(lambda: check(tyro.cli(CheckScene)))


def check(settings: CheckScene) -> int:
    """Check a scene, print the findings and draw the cameras. Returns the exit status.

    Raises:
        UserError: there is no such method or scene.
    """
    use = _use(settings)
    reader = read_by(replace(settings.dataparser, data=settings.data)).setup()
    background = torch.full((3,), float(settings.background == "white"))
    splits = ("train", "val", "test")
    report = check_scene(reader, splits, use, background=background, allow_opaque=settings.allow_opaque)
    _print(report.findings, report)
    if report.splits:
        _draw(report, settings.out)
    return 1 if report.findings.errors else 0


def _draw(report: SceneReport, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_scene(report, path)
    except UserError:  # the picture itself, in a sentence already
        raise
    except OSError as error:
        raise UserError(f"cannot write the picture {path} (--out): {error.strerror}") from None
    print(f"{path}: cameras, frusta, scene box")


def _use(settings: CheckScene) -> SceneUse:
    found = entry_points(group=METHODS)
    if settings.method not in found.names:
        raise UserError(f"there is no method {settings.method!r}; known are {', '.join(sorted(found.names))}")
    model = found[settings.method].load().config.pipeline.model
    use = model.scene_use() if hasattr(model, "scene_use") else PLAIN_USE
    stated = {name: getattr(settings, name) for name in ("near", "far") if getattr(settings, name) is not None}
    return replace(use, **stated)


def _print(findings: Findings, report: SceneReport) -> None:
    print("\n".join(report.summary()), flush=True)
    for warning in findings.warnings:
        print(f"warning: {warning}")
    for error in findings.errors:
        print(f"error: {error}", file=sys.stderr)
    if not findings.errors:
        print("nothing is wrong with the scene" if not findings.warnings else "the scene can be trained on")


if __name__ == "__main__":
    main()
