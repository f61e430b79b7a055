"""Scenes in Blender layout, with everything that their files state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.blender_dataparser import Blender, BlenderDataParserConfig
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from perception.studio.coordinates import far_centre
from perception.studio.errors import SceneError
from perception.studio.findings import counted
from perception.studio.image_files import ImageFile, find_image, look_at_all
from perception.studio.intrinsics import Intrinsics, fit_size, make_cameras, stated_intrinsics
from perception.studio.transforms import OTHER_SPLIT, read_transforms

HOLDOUT = "holdout"
"""A split of views that methods may choose to train on later (ActiveNeRF): `transforms_holdout.json`."""
HALF_BOX = 1.5  # of the scene box, as in nerfstudio's parser


class StatedBlender(Blender):
    """nerfstudio's parser of `transforms_{train,val,test}.json`, which besides `camera_angle_x` uses

    * `camera_angle_y`, `fl_x`, `fl_y`, `cx`, `cy`, `w`, `h`, distortion and `camera_model`, of the scene or of single
      frames (see :func:`~perception.studio.intrinsics.stated_intrinsics`);
    * `mask_path` of all frames, and `near` and `far` of the scene;
    * `file_path` with a suffix or without (PNG, JPEG and others);
    * the other one of `transforms_val.json` and `transforms_test.json` where one is missing.

    Poses far from the origin are moved to it in double precision; `dataparser_transform` tells by how much.
    """

    config: BlenderDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train") -> DataparserOutputs:
        path = self._file_of(split)
        meta, poses = read_transforms(path)
        if split == HOLDOUT:
            meta, poses = self._taken(path, meta, poses)
        frames = meta["frames"]
        images = look_at_all([find_image(self.data, frame["file_path"]) for frame in frames])
        self._demand_images(path, frames, images)
        intrinsics = _intrinsics(path, meta, images)
        centre = self._centre(poses)
        poses[:, :3, 3] -= centre
        outputs = DataparserOutputs(
            image_filenames=[image.path for image in images],
            cameras=make_cameras(self._scaled(poses), intrinsics),
            alpha_color=self.alpha_color_tensor,
            scene_box=SceneBox(aabb=torch.tensor([[-HALF_BOX] * 3, [HALF_BOX] * 3])),
            mask_filenames=_masks(self.data, frames),
            metadata=_depth_range(path, meta, self.scale_factor),
            dataparser_transform=torch.cat([torch.eye(3), -centre.float()[:, None]], 1),
            dataparser_scale=self.scale_factor,
        )
        if self.config.ply_path is not None:
            if bool(centre.any()):
                raise SceneError(
                    f"--ply-path {self.config.ply_path} cannot be used with poses far from the origin: subtract "
                    f"{centre.tolist()} from the points and from all poses"
                )
            outputs.metadata.update(self._load_3D_points(self.config.data / self.config.ply_path))
        return outputs

    def _taken(self, path: Path, meta: dict[str, Any], poses: Tensor) -> tuple[dict[str, Any], Tensor]:
        """The frames whose image is there: views of this split may be taken later."""
        there = [find_image(self.data, frame["file_path"]).is_file() for frame in meta["frames"]]
        if not any(there):
            raise SceneError(f"none of the {len(there)} views of {path} has an image yet")
        if not all(there):
            missing = len(there) - sum(there)
            CONSOLE.log(f"{missing} of {len(there)} views of {path.name} have no image yet and are left out")
        return {**meta, "frames": list(compress(meta["frames"], there))}, poses[torch.tensor(there)]

    def _file_of(self, split: str) -> Path:
        path = self.data / f"transforms_{split}.json"
        if path.is_file():
            return path
        other = self.data / f"transforms_{OTHER_SPLIT.get(split)}.json"
        if split in OTHER_SPLIT and other.is_file():
            CONSOLE.log(f"{self.data} has no {path.name}: {other.name} stands in for it")
            return other
        others = f" or {other.name}" if split in OTHER_SPLIT else ""
        raise SceneError(f"{self.data} has no {path.name}{others}, which a scene in Blender layout needs")

    def _demand_images(self, path: Path, frames: Sequence[Mapping[str, Any]], images: Sequence[ImageFile]) -> None:
        faults = []
        for frame, image in zip(frames, images):
            if image.fault and not image.path.is_file():
                faults.append(f"{path} names {frame['file_path']}, but {image.fault}")
            elif image.fault:
                faults.append(image.fault)
        if faults:
            raise SceneError(counted(faults))

    def _centre(self, poses: Tensor) -> Tensor:
        """What is subtracted from the positions of all splits alike (3,): it depends on the training poses alone."""
        train = self.data / "transforms_train.json"
        positions = (read_transforms(train)[1] if train.is_file() else poses)[:, :3, 3]
        centre = far_centre(positions.numpy())
        return torch.zeros(3, dtype=torch.float64) if centre is None else torch.from_numpy(centre)

    def _scaled(self, poses: Tensor) -> Tensor:
        poses = poses[:, :3].float()
        poses[..., 3] *= self.scale_factor
        return poses


def _intrinsics(path: Path, meta: Mapping[str, Any], images: Sequence[ImageFile]) -> list[Intrinsics]:
    first, made, faults = images[0], [], []
    for number, (frame, image) in enumerate(zip(meta["frames"], images)):
        where, size = f"{path}: frame {number}", (image.width, image.height)
        try:
            if not ({"w", "h"} & (meta.keys() | frame.keys())) and not fit_size((first.width, first.height), size):
                raise SceneError(
                    f"{image.path} is {image.width} x {image.height} pixels, but its camera "
                    f"{first.width} x {first.height} as that of {first.path.name}"
                )
            made.append(stated_intrinsics(meta, frame, size, where))
        except SceneError as error:
            faults.append(str(error))
    if faults:
        raise SceneError(counted(faults))
    return made


def _masks(folder: Path, frames: Sequence[Mapping[str, Any]]) -> list[Path] | None:
    return [folder / frame["mask_path"] for frame in frames if frame.get("mask_path")] or None


def _depth_range(path: Path, meta: Mapping[str, Any], scale: float) -> dict[str, float]:
    stated = {key: meta[key] for key in ("near", "far") if meta.get(key) is not None}
    for key, value in stated.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise SceneError(f"{path}: {key} must be a number, not {value!r}")
    return {key: float(value) * scale for key, value in stated.items()}
