"""The views of a scene on disk, without a training run."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from perception.studio.camera_checks import check_cameras
from perception.studio.datamanager import BackgroundDataset
from perception.studio.errors import SceneError
from perception.studio.parsers import LAYOUTS, known_layout, read_by
from perception.studio.transforms import check_folder


def parsers() -> dict[str, type[DataParserConfig]]:
    """All data parsers that `ns-train` offers, nerfstudio's and those of installed packages, by their names there."""
    # Its import finds the parsers of all packages, this one's among them.
    from nerfstudio.configs.dataparser_configs import all_dataparsers

    return {name: type(config) for name, config in all_dataparsers.items()}


def describe_parser(config: DataParserConfig, data: Path | None = None) -> dict[str, Any] | None:
    """A data parser as JSON values: ``name``, ``options`` that differ from its defaults, and ``file`` where ``data``
    names a file in the scene's folder; ``None`` for a parser that `ns-train` does not offer.

    Args:
        config: of the parser.
        data: what the run read.
    """
    name = next((name for name, kind in parsers().items() if type(config) is kind), None)
    if name is None:
        return None
    options = {}
    for option in fields(config):
        default = option.default if option.default_factory is MISSING else option.default_factory()
        value = getattr(config, option.name)
        if option.name not in ("_target", "data") and value != default:
            options[option.name] = _plain(value)
    described: dict[str, Any] = {"name": name, "options": options}
    if data is not None and data.suffix == ".json":
        described["file"] = data.name
    return described


def parser_config(data: Path, described: dict[str, Any] | None = None) -> DataParserConfig:
    """The data parser for a scene: the one described, or, where nothing is or the scene is in another layout, the one
    whose files lie there, which is said.

    Args:
        data: folder of the scene, or a file in it that the parser reads.
        described: from :func:`describe_parser`.

    Raises:
        SceneError: there is no such parser or layout, or an option that it does not know.
    """
    check_folder(data)
    layout = "nerfstudio-data" if data.suffix == ".json" else known_layout(data)
    known = parsers()
    if described is None or _foreign(data, described, layout):
        if layout is None:
            names = ", ".join(LAYOUTS)
            raise SceneError(f"{data} is in none of the layouts that are recognised by their files ({names})")
        reason = "no run says how" if described is None else f"the run used {described['name']}, which is not here"
        CONSOLE.log(f"Reading {data} with {layout}, by its files: {reason}.")
        name, *option = layout.split()  # of which COLMAP's says where its model lies
        return known[name](data=data, **({"colmap_path": Path(option[1])} if option else {}))
    kind = known.get(described["name"])
    if kind is None:
        raise SceneError(f"the run read its scene with the data parser {described['name']}, which is not installed")
    options = dict(described["options"])
    unknown = options.keys() - {option.name for option in fields(kind)}
    if unknown:
        raise SceneError(f"the data parser {described['name']} has no option {', '.join(sorted(unknown))} here")
    if data.is_dir() and "file" in described:
        data = data / described["file"]
        CONSOLE.log(f"Reading {data}, as the run did.")
        check_folder(data)
    hints = get_type_hints(kind)
    return kind(data=data, **{name: _restored(value, hints[name]) for name, value in options.items()})


def scene_views(data: Path, split: str, background: Tensor, parser: dict[str, Any] | None = None) -> BackgroundDataset:
    """Images and cameras of a split.

    Args:
        data: folder of the scene, or a file in it that the parser reads.
        split: ``"train"``, ``"val"`` or ``"test"``.
        background: colour (3,) behind transparent pixels.
        parser: from :func:`describe_parser`; by default the one whose files lie in the folder.

    Raises:
        SceneError: the scene cannot be read.
    """
    outputs = read_by(parser_config(data, parser)).setup().get_dataparser_outputs(split=split)
    check_cameras(outputs.cameras, outputs.image_filenames)
    return BackgroundDataset(outputs, background=torch.as_tensor(background, dtype=torch.float32))


def _foreign(data: Path, described: dict[str, Any], layout: str | None) -> bool:
    """Whether a scene lacks the files of the described parser and has those of another."""
    if data.is_file() or layout is None or layout.split()[0] == described["name"]:
        return False
    relocated = described["options"].get("colmap_path")
    signature = (relocated,) if relocated else LAYOUTS.get(described["name"], ())
    return not all((data / part).exists() for part in signature)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return value.as_posix()
    return [_plain(entry) for entry in value] if isinstance(value, (tuple, list)) else value


def _restored(value: Any, hint: Any) -> Any:
    """An option as its parser's annotation has it: JSON has no paths and no tuples."""
    kinds = (hint, *get_args(hint))
    if isinstance(value, str) and Path in kinds:
        return Path(value)
    return tuple(value) if isinstance(value, list) else value
