"""The views of a scene on disk, without a training run."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from torch import Tensor

from perception.studio.camera_checks import check_cameras
from perception.studio.datamanager import BackgroundDataset
from perception.studio.errors import SceneError
from perception.studio.nsvf_dataparser import NSVFDataParserConfig
from perception.studio.parsers import known_layout, read_by
from perception.studio.transforms import check_folder

PARSERS: dict[str, type[DataParserConfig]] = {
    "blender-data": BlenderDataParserConfig,
    "nsvf-data": NSVFDataParserConfig,
    "nerfstudio-data": NerfstudioDataParserConfig,
    "colmap": ColmapDataParserConfig,
}


def describe_parser(config: DataParserConfig) -> dict[str, Any] | None:
    """The name and the options of a data parser as JSON values; ``None`` for a parser that is not in ``PARSERS``."""
    for name, kind in PARSERS.items():
        if type(config) is kind:
            options = {}
            for option in fields(config):
                default = option.default if option.default_factory is MISSING else option.default_factory()
                value = getattr(config, option.name)
                plain = isinstance(value, (str, int, float, bool, type(None)))
                if option.name not in ("_target", "data") and plain and value != default:
                    options[option.name] = value
            return {"name": name, "options": options}
    return None


def scene_views(
    folder: Path, split: str, background: Tensor, parser: dict[str, Any] | None = None
) -> BackgroundDataset:
    """Images and cameras of a split.

    Args:
        folder: of the scene.
        split: ``"train"``, ``"val"`` or ``"test"``.
        background: colour (3,) behind transparent pixels.
        parser: from :func:`describe_parser`; by default the one whose files lie in the folder.

    Raises:
        SceneError: the scene cannot be read.
    """
    check_folder(folder)
    name = known_layout(folder)
    if name not in PARSERS:
        raise SceneError(f"{folder} is in none of the layouts {', '.join(PARSERS)}")
    options = parser["options"] if parser is not None and parser["name"] == name else {}
    outputs = read_by(PARSERS[name](data=folder, **options)).setup().get_dataparser_outputs(split=split)
    check_cameras(outputs.cameras, outputs.image_filenames)
    return BackgroundDataset(outputs, background=torch.as_tensor(background, dtype=torch.float32))
