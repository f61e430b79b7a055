"""Folders in the layout of TensoIR's synthetic scenes (and of Shiny Inverse Rendering), for nerfstudio."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from nerfstudio.utils.colors import get_color
from torch import Tensor

from perception.studio.errors import SceneError
from perception.studio.findings import counted
from perception.studio.image_files import look_at_all
from perception.studio.intrinsics import make_cameras, stated_intrinsics
from perception.studio.transforms import OTHER_SPLIT, check_folder, check_pose, read_json

HALF_BOX = 1.5
MAPS = ("albedo", "roughness", "normal", "metallic")
LIGHT_FOLDERS = ("lights", "../lights", "../envmaps")
"""Where the light maps of a scene are looked for."""


@dataclass
class TensoIRDataParserConfig(DataParserConfig):
    """Reads `{train,val,test}_NNN/metadata.json` with `rgba.png` beside it, and the true maps that are there."""

    _target: type = field(default_factory=lambda: TensoIR)
    data: Path = Path("data/tensoir/lego")
    """Folder of the scene."""
    alpha_color: str | None = "white"
    """Background that images are put on."""
    albedo_format: Literal["exr", "png", "any"] = "any"
    """Which of `albedo.exr` and `albedo.png` is read; any that is there, EXR first. Both are linear."""
    lights: Path | None = None
    """Folder of the light maps `NAME.hdr` under which `rgba_NAME.png` were made; by default `lights` in the scene's
    folder or beside it, or `envmaps` beside it."""


@dataclass
class TensoIR(DataParser):
    """Of the validation and test views, one stands in for the other where it is missing.

    ``metadata`` holds ``folders`` of the views in their order, ``albedo_format``, and ``lights``, the file of each
    light map by its name.
    """

    config: TensoIRDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train") -> DataparserOutputs:
        check_folder(self.config.data)
        folders = views_of(self.config.data, split)
        images = look_at_all([folder / "rgba.png" for folder in folders])
        faults = [image.fault for image in images if image.fault]
        poses, intrinsics = [], []
        for folder, image in zip(folders, images):
            try:
                pose, meta = read_view(folder)
                poses.append(pose[:3].float())
                if not image.fault:
                    where = str(folder / "metadata.json")
                    intrinsics.append(stated_intrinsics(meta, {}, (image.width, image.height), where))
            except SceneError as error:
                faults.append(str(error))
        if faults:
            raise SceneError(counted(faults))
        colour = self.config.alpha_color
        return DataparserOutputs(
            image_filenames=[image.path for image in images],
            cameras=make_cameras(torch.stack(poses), intrinsics),
            alpha_color=None if colour is None else get_color(colour),
            scene_box=SceneBox(aabb=torch.tensor([[-HALF_BOX] * 3, [HALF_BOX] * 3])),
            metadata={
                "folders": [str(folder) for folder in folders],
                "albedo_format": self.config.albedo_format,
                "lights": self._lights(),
            },
        )

    def _lights(self) -> dict[str, str]:
        given = self.config.lights
        if given is not None and not given.is_dir():
            raise SceneError(f"--lights: there is no folder {given}")
        places = [self.config.data / name for name in LIGHT_FOLDERS] if given is None else [given]
        folder = next((place for place in places if place.is_dir()), None)
        found = () if folder is None else sorted(path for path in folder.iterdir() if path.suffix in (".hdr", ".exr"))
        return {path.stem: str(path) for path in found}


def views_of(scene: Path, split: str) -> list[Path]:
    """Folders of a split's views, in order of their names.

    Raises:
        SceneError: there are none.
    """
    for name in (split, OTHER_SPLIT.get(split)):
        found = sorted(path for path in scene.glob(f"{name}_*") if path.is_dir()) if name else []
        if found:
            return found
    raise SceneError(f"{scene} has no folders {split}_000, {split}_001, ... of views")


def read_view(folder: Path) -> tuple[Tensor, dict[str, Any]]:
    """Pose (4, 4) of a view, OpenGL axes, and what else its `metadata.json` states, by Blender's names.

    Raises:
        SceneError: the file is missing, or lacks the angle or a pose.
    """
    path = folder / "metadata.json"
    if not path.is_file():
        raise SceneError(f"{folder} has no metadata.json")
    meta = read_json(path)
    missing = [key for key in ("cam_angle_x", "cam_transform_mat") if key not in meta]
    if missing:
        raise SceneError(f"{path} lacks {' and '.join(missing)}")
    stated = meta["cam_transform_mat"]
    try:
        numbers = [float(value) for value in (stated.split(",") if isinstance(stated, str) else stated)]
        pose = torch.tensor(numbers, dtype=torch.float64).view(4, 4)
    except (TypeError, ValueError, AttributeError, RuntimeError):
        raise SceneError(f"{path}: cam_transform_mat must be 16 numbers, separated by commas") from None
    check_pose(pose, str(path))
    sizes = {"imw": "w", "imh": "h", "w": "w", "h": "h"}  # TensoIR's names, and the others
    known = {name: meta[key] for key, name in sizes.items() if key in meta}
    return pose, {"camera_angle_x": meta["cam_angle_x"], **known}


tensoir_spec = DataParserSpecification(
    config=TensoIRDataParserConfig(),
    description="TensoIR and Shiny Inverse Rendering folders: train_000/metadata.json, rgba.png and true maps",
)
