"""The look at a scene, and ways to change the scene before."""

import json
from pathlib import Path

import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig

from perception.studio.parsers import read_by
from perception.studio.scene_checks import SceneReport, SceneUse, check_scene

WHITE = torch.ones(3)
USE = SceneUse(("test",), surrounded=True, bounds_rays=True)


def look(folder: Path, config=None, use=USE, **options) -> SceneReport:
    config = config or BlenderDataParserConfig()
    config.data = folder
    return check_scene(read_by(config).setup(), ("train", "val"), use, **{"background": WHITE, **options})


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def move(pose: list, factor: float) -> None:
    for row in pose[:3]:
        row[3] *= factor
