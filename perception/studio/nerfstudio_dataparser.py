"""`transforms.json` scenes of nerfstudio, with everything that the file states."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.nerfstudio_dataparser import Nerfstudio, NerfstudioDataParserConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from perception.studio.coordinates import far_centre
from perception.studio.errors import SceneError
from perception.studio.findings import counted
from perception.studio.intrinsics import DISTORTION, stated_intrinsics
from perception.studio.transforms import OTHER_SPLIT, check_names, is_number, read_transforms

SHAPE = ("fl_x", "fl_y", "cx", "cy", "w", "h")
SPLITS = ("train", "val", "test")
# What nerfstudio takes as the transform from COLMAP's frame where a processed COLMAP scene does not state it.
COLMAP_TRANSFORM = [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0]]


class StatedNerfstudio(Nerfstudio):
    """nerfstudio's parser, which besides

    * uses intrinsics of single frames also where the scene states them, too (nerfstudio drops them);
    * takes poses of three rows;
    * lets the list of validation images stand in for a missing list of test images, and the other way round;
    * moves poses far from the origin to it in double precision.

    What it says otherwise is nerfstudio's own doing: it reads a copy of the file with these things put in order, where
    any of them is needed.
    """

    config: NerfstudioDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train") -> DataparserOutputs:
        given = self.config.data
        path = given if given.suffix == ".json" else given / "transforms.json"
        meta, poses = read_transforms(path)
        _check_cameras(path, meta)
        _check_applied(path, meta)
        tidy = deepcopy(meta)
        _share_camera_model(path, tidy)
        _spread_intrinsics(path, tidy)
        _complete_splits(path, tidy)
        if (key := f"{split}_filenames") in tidy and key not in meta:
            CONSOLE.log(f"{path} has no {key}: {OTHER_SPLIT[split]}_filenames stand in for them")
        self._centre = _tidy_poses(tidy, poses, has_colmap=(given / "colmap/sparse/0").exists())
        if tidy == meta:
            return super()._generate_dataparser_outputs(split)
        with self._reading(tidy, path.parent):
            return super()._generate_dataparser_outputs(split)

    @contextmanager
    def _reading(self, meta: dict[str, Any], folder: Path) -> Iterator[None]:
        config = self.config
        if "ply_file_path" in meta:
            meta["ply_file_path"] = str((folder / meta["ply_file_path"]).absolute())
        with TemporaryDirectory() as scratch:
            copy = Path(scratch) / "transforms.json"
            copy.write_text(json.dumps(meta), encoding="utf-8")
            self.config, self._folder = replace(config, data=copy), folder
            try:
                yield
            finally:
                self.config, self._folder = config, None

    _folder: Path | None = None
    _centre: np.ndarray | None = None

    def _get_fname(self, filepath: Path, data_dir: Path, downsample_folder_prefix: str = "images_") -> Path:
        return super()._get_fname(filepath, self._folder or data_dir, downsample_folder_prefix)

    def _load_3D_points(self, ply_file_path: Path, transform_matrix: Tensor, scale_factor: float):
        if self._centre is not None:  # the file's points have not been moved
            moved = transform_matrix.clone()
            moved[:, 3] -= moved[:, :3] @ torch.from_numpy(self._centre).to(moved)
            transform_matrix = moved
        return super()._load_3D_points(ply_file_path, transform_matrix, scale_factor)


def _check_cameras(path: Path, meta: dict[str, Any]) -> None:
    faults = []
    for number, frame in enumerate(meta["frames"]):
        try:
            _check_camera(f"{path}: frame {number}", meta, frame)
        except SceneError as error:
            faults.append(str(error))
    if faults:
        raise SceneError(counted(faults))


def _check_applied(path: Path, meta: dict[str, Any]) -> None:
    """What was done to the poses before, and export undoes."""
    rows, scale = meta.get("applied_transform", COLMAP_TRANSFORM), meta.get("applied_scale", 1)
    if not isinstance(rows, list) or len(rows) != 3 or not all(map(_is_row, rows)):
        raise SceneError(f"{path}: applied_transform must be a 3 x 4 matrix of numbers, not {rows!r}")
    if not is_number(scale) or scale <= 0:
        raise SceneError(f"{path}: applied_scale must be a positive number, not {scale!r}")


def _is_row(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 4 and all(map(is_number, row))


def _share_camera_model(path: Path, meta: dict[str, Any]) -> None:
    models = {frame.get("camera_model", meta.get("camera_model")) for frame in meta["frames"]}
    if len(models) > 1 or ("camera_model" in meta and models != {meta["camera_model"]}):
        raise SceneError(f"{path} has frames of several camera models, of which nerfstudio-data reads one")
    if models != {None}:
        meta["camera_model"] = models.pop()


def _check_camera(where: str, meta: dict[str, Any], frame: dict[str, Any]) -> None:
    stated = meta.keys() | frame.keys()
    if "fl_x" not in stated and "fl_y" not in stated:
        if {"camera_angle_x", "x_fov"} & stated:
            raise SceneError(
                f"{where} states its focal length as an angle (camera_angle_x), which nerfstudio-data does not read: "
                "name `instant-ngp-data` instead"
            )
        raise SceneError(f"{where} states no focal length (fl_x, fl_y)")
    if missing := [key for key in SHAPE if key not in stated]:
        raise SceneError(f"{where} states no {', '.join(missing)}, which nerfstudio-data needs")
    width, height = (frame.get(key, meta.get(key)) for key in ("w", "h"))
    stated_intrinsics(meta, frame, (width, height), where)


def _spread_intrinsics(path: Path, meta: dict[str, Any]) -> None:
    """Move what the scene states into the frames where a frame states something else."""
    frames = meta["frames"]
    for key in SHAPE:
        if key in meta and any(frame.get(key, meta[key]) != meta[key] for frame in frames):
            value = meta.pop(key)
            for frame in frames:
                frame.setdefault(key, value)
    keys = (*DISTORTION, "distortion_params")
    shared = {key: meta[key] for key in keys if key in meta}
    if shared and any(key in frame and frame[key] != shared.get(key) for frame in frames for key in keys):
        for key in shared:
            del meta[key]
        for frame in frames:
            if not any(key in frame for key in keys):
                frame.update(shared)
    if any(("distortion_params" in frame) != ("distortion_params" in frames[0]) for frame in frames):
        raise SceneError(f"{path}: some frames have distortion_params and others have not")


def _complete_splits(path: Path, meta: dict[str, Any]) -> None:
    lists = {split: meta[f"{split}_filenames"] for split in SPLITS if f"{split}_filenames" in meta}
    if not lists:
        return
    for split, names in lists.items():
        check_names(path, split, names, [frame["file_path"] for frame in meta["frames"]])
    if not lists.get("train"):
        raise SceneError(f"{path} lists images of {', '.join(lists)}, but no train_filenames")
    for split, other in OTHER_SPLIT.items():
        if not lists.get(split):
            if not lists.get(other):
                raise SceneError(f"{path} lists neither val_filenames nor test_filenames beside train_filenames")
            meta[f"{split}_filenames"] = lists[other]


def _tidy_poses(meta: dict[str, Any], poses: Tensor, *, has_colmap: bool) -> np.ndarray | None:
    centre = far_centre(poses[:, :3, 3].numpy())
    if centre is None and all(len(frame["transform_matrix"]) == 4 for frame in meta["frames"]):
        return None
    if has_colmap:
        meta.setdefault("applied_transform", COLMAP_TRANSFORM)
    if centre is not None:
        poses = poses.clone()
        poses[:, :3, 3] -= torch.from_numpy(centre)
        applied = np.array(meta.get("applied_transform", np.eye(4)[:3]), dtype=np.float64)[:3]
        applied[:, 3] -= centre
        meta["applied_transform"] = applied.tolist()
    for frame, pose in zip(meta["frames"], poses):
        frame["transform_matrix"] = pose.tolist()
    return centre
