"""`transforms.json` scenes of instant-ngp, with everything that the file states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.instant_ngp_dataparser import InstantNGP

from perception.studio.coordinates import far_centre
from perception.studio.errors import SceneError
from perception.studio.findings import counted
from perception.studio.image_files import look_at_all
from perception.studio.intrinsics import make_cameras, stated_intrinsics
from perception.studio.transforms import is_number, read_transforms


class StatedInstantNGP(InstantNGP):
    """nerfstudio's parser, which besides uses `fl_y` and `camera_angle_y`, intrinsics of single frames and
    `camera_model`, takes sizes of images from their files, and refuses poses that single precision cannot hold.
    """

    def _generate_dataparser_outputs(self, split: str = "train") -> DataparserOutputs:
        given = self.config.data
        path = given if given.suffix == ".json" else given / "transforms.json"
        meta, poses = read_transforms(path)
        centre = far_centre(poses[:, :3, 3].numpy())
        if centre is not None:
            raise SceneError(
                f"{path} has poses around {centre.tolist()}, where single precision cannot tell the cameras apart: "
                "subtract that from the last column of every transform_matrix"
            )
        _demand_images(path, meta)
        _check_scale(path, meta)
        outputs = super()._generate_dataparser_outputs(split)
        if not outputs.image_filenames:
            return outputs  # the reader says so
        frames = {}
        for number, frame in enumerate(meta["frames"]):
            for name in (frame["file_path"], frame["file_path"] + ".png"):
                frames.setdefault(path.parent / Path(name), (number, frame))
        images = look_at_all(outputs.image_filenames)
        intrinsics, faults = [], [image.fault for image in images if image.fault]
        if faults:
            raise SceneError(counted(faults))
        for image in images:
            number, frame = frames[image.path]
            try:
                where = f"{path}: frame {number}"
                intrinsics.append(stated_intrinsics(meta, frame, (image.width, image.height), where))
            except SceneError as error:
                faults.append(str(error))
        if faults:
            raise SceneError(counted(faults))
        # nerfstudio's own poses of a split of one image lose their translation.
        poses = poses[[frames[image.path][0] for image in images], :3].float()
        poses[..., 3] *= self.config.scene_scale
        outputs.cameras = make_cameras(poses, intrinsics)
        outputs.cameras.fx, outputs.cameras.fy = outputs.cameras.fx.float(), outputs.cameras.fy.float()
        if outputs.cameras.distortion_params is None:
            outputs.cameras.distortion_params = torch.zeros(len(images), 6)
        return outputs


def _demand_images(path: Path, meta: dict[str, Any]) -> None:
    """nerfstudio's parser leaves out frames whose images are missing, in every split without a warning."""
    faults = []
    for number, frame in enumerate(meta["frames"]):
        image = path.parent / frame["file_path"]
        if not image.is_file() and not image.with_name(image.name + ".png").is_file():
            faults.append(f"{path}: frame {number} names {frame['file_path']}, but there is no image {image}")
    if faults:
        raise SceneError(counted(faults))


def _check_scale(path: Path, meta: dict[str, Any]) -> None:
    scale = meta.get("aabb_scale", 1)
    if not is_number(scale) or scale <= 0:
        raise SceneError(f"{path}: aabb_scale must be a positive number, not {scale!r}")
