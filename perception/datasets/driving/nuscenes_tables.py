"""nuScenes' tables, through the official devkit, and what info files take from them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import torch
from nuscenes import NuScenes
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import view_points
from nuscenes.utils.splits import create_splits_scenes
from torch import Tensor

from perception.engine.errors import UserError
from perception.geometry import se3

from .infos import Camera, Frame, Objects, PerspectiveObject

TABLES = (
    *("category", "attribute", "visibility", "instance", "sensor", "calibrated_sensor", "ego_pose", "log"),
    *("scene", "sample", "sample_data", "sample_annotation", "map"),
)

SPLITS = {"v1.0-mini": ("mini_train", "mini_val"), "v1.0-trainval": ("train", "val"), "v1.0-test": ("test",)}
"""The devkit's splits of each version."""

ATTRIBUTE_NUMBERS = {
    **{"vehicle.moving": 0, "vehicle.parked": 1, "vehicle.stopped": 2},
    **{"pedestrian.moving": 0, "pedestrian.standing": 1, "pedestrian.sitting_lying_down": 2},
    **{"cycle.with_rider": 0, "cycle.without_rider": 1},
}
NO_ATTRIBUTE = 3
FEWEST_POINTS = 3  # of LiDAR and radar, in an object that supervises a camera
LEAST_INSIDE = 0.2  # share of its 2D box that lies in the image


def open_tables(root: str | Path, version: str) -> NuScenes:
    """Load all tables.

    Raises:
        UserError: a folder, a table or a map is missing, or a table cannot be read.
    """
    root = Path(root)
    folder = root / version
    if not folder.is_dir():
        there = sorted(path.name for path in root.glob("v1.0-*")) if root.is_dir() else []
        have = f"it has {', '.join(there)}" if there else "it has no v1.0-* folder"
        raise UserError(f"{root} has no tables of version {version}: {have}")
    for name in TABLES:
        path = folder / f"{name}.json"
        try:
            with path.open("rb") as file:
                start = file.read(64).strip()
        except FileNotFoundError:
            raise UserError(f"{path} is missing: nuScenes {version} has {len(TABLES)} tables") from None
        if not start.startswith(b"["):
            raise UserError(f"{path} is not a table of nuScenes: a list of rows in JSON is expected")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return NuScenes(version, str(root), verbose=False)
    except json.JSONDecodeError as error:
        raise UserError(f"a table of {folder} is not valid JSON: {error}; was its download complete?") from error
    except KeyError as error:
        raise UserError(f"the tables of {folder} do not fit together: no row or column {error}") from error
    except AssertionError as error:
        raise UserError(f"the data set {root} is not complete: {error}") from error


def frames_of(nusc: NuScenes, split: str, on_progress: Callable[[int, int], None] | None = None) -> list[Frame]:
    """All key frames of a split.

    Args:
        nusc: the tables.
        split: one of the devkit's for this version.
        on_progress: called with the number of finished frames and their total.

    Raises:
        UserError: the version has no such split or none of its scenes, or files are missing.
    """
    known = SPLITS.get(nusc.version, tuple(create_splits_scenes()))
    if split not in known:
        raise UserError(f"{nusc.version} has no split {split}; it has {', '.join(known)}")
    names = set(create_splits_scenes()[split])
    scenes = {scene["token"]: scene["name"] for scene in nusc.scene if scene["name"] in names}
    samples = [sample for sample in nusc.sample if sample["scene_token"] in scenes]
    if not samples:
        raise UserError(f"none of the scenes of {nusc.dataroot}/{nusc.version} is in the split {split}")
    _check_files(nusc, samples)
    frames = []
    for number, sample in enumerate(samples, 1):
        frames.append(_frame(nusc, sample, scenes[sample["scene_token"]]))
        if on_progress is not None:
            on_progress(number, len(samples))
    return frames


def frames_without_annotations(nusc: NuScenes, scenes: Collection[str]) -> list[Frame]:
    """All key frames of scenes, without their objects: what inference needs. Files need not be there.

    Args:
        nusc: the tables.
        scenes: names.

    Raises:
        UserError: a sample has no LIDAR_TOP, in whose frame boxes are.
    """
    names = {scene["token"]: scene["name"] for scene in nusc.scene if scene["name"] in scenes}
    samples = [sample for sample in nusc.sample if sample["scene_token"] in names]
    return [_frame(nusc, sample, names[sample["scene_token"]], annotated=False) for sample in samples]


def _check_files(nusc: NuScenes, samples: list[dict]) -> None:
    missing = []
    for sample in samples:
        for channel, token in sample["data"].items():
            path = Path(nusc.get_sample_data_path(token))
            if channel.startswith(("CAM", "LIDAR_TOP")) and not path.is_file():
                missing.append(path)
    if missing:
        more = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]}{more} named by the tables of {nusc.version} cannot be found")


def _frame(nusc: NuScenes, sample: dict, scene: str, annotated: bool = True) -> Frame:
    if "LIDAR_TOP" not in sample["data"]:
        raise UserError(f"sample {sample['token']} of {nusc.dataroot} has no LIDAR_TOP: boxes are in its frame")
    lidar = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
    ego_from_lidar = pose_of_row(nusc.get("calibrated_sensor", lidar["calibrated_sensor_token"]))
    global_from_ego = pose_of_row(nusc.get("ego_pose", lidar["ego_pose_token"]))
    lidar_from_global = se3.invert(global_from_ego @ ego_from_lidar)
    annotations = [nusc.get("sample_annotation", token) for token in sample["anns"]] if annotated else []
    velocities = {row["token"]: nusc.box_velocity(row["token"]) for row in annotations}
    cameras = {
        channel: _camera(nusc, token, lidar_from_global, velocities, annotated)
        for channel, token in sample["data"].items()
        if channel.startswith("CAM")
    }
    return Frame(
        token=sample["token"],
        scene=scene,
        scene_token=sample["scene_token"],
        timestamp=sample["timestamp"],
        lidar_path=lidar["filename"],
        ego_from_lidar=ego_from_lidar.tolist(),
        global_from_ego=global_from_ego.tolist(),
        cameras=cameras,
        objects=_objects(nusc, annotations, velocities, lidar_from_global),
    )


def _objects(
    nusc: NuScenes, annotations: list[dict], velocities: dict[str, np.ndarray], lidar_from_global: Tensor
) -> Objects:
    boxes = []
    for row in annotations:
        pose = lidar_from_global @ pose_of_row(row)
        width, length, height = row["size"]
        # NaN where unknown; a velocity has no height, as in nuScenes' detection boxes.
        velocity = torch.from_numpy(np.append(velocities[row["token"]][:2], 0.0))
        vx, vy, _ = (lidar_from_global[:3, :3] @ velocity).tolist()
        boxes.append([*pose[:3, 3].tolist(), length, width, height, float(se3.heading(pose)), vx, vy])
    return Objects(
        boxes=boxes,
        names=[category_to_detection_name(row["category_name"]) or row["category_name"] for row in annotations],
        attributes=[_attribute(nusc, row) for row in annotations],
        instances=[row["instance_token"] for row in annotations],
        lidar_points=[row["num_lidar_pts"] for row in annotations],
        radar_points=[row["num_radar_pts"] for row in annotations],
        visibility=[int(row["visibility_token"] or 0) for row in annotations],
    )


def _camera(
    nusc: NuScenes, token: str, lidar_from_global: Tensor, velocities: dict[str, np.ndarray], annotated: bool
) -> Camera:
    data = nusc.get("sample_data", token)
    calibration = nusc.get("calibrated_sensor", data["calibrated_sensor_token"])
    global_from_ego = pose_of_row(nusc.get("ego_pose", data["ego_pose_token"]))
    objects: list[PerspectiveObject | None] = []
    if annotated:
        _, seen, intrinsics = nusc.get_sample_data(token)
        objects = [_perspective(nusc, box, intrinsics, data, velocities) for box in seen]
    return Camera(
        path=data["filename"],
        token=token,
        timestamp=data["timestamp"],
        width=data["width"],
        height=data["height"],
        intrinsics=calibration["camera_intrinsic"],
        lidar_from_camera=(lidar_from_global @ global_from_ego @ pose_of_row(calibration)).tolist(),
        objects=[found for found in objects if found is not None],
    )


def _perspective(
    nusc: NuScenes, box: Box, intrinsics: np.ndarray, data: dict, velocities: dict[str, np.ndarray]
) -> PerspectiveObject | None:
    """A target of perspective supervision, or None where the object is too hidden or of no class."""
    row = nusc.get("sample_annotation", box.token)
    name = category_to_detection_name(row["category_name"])
    if name is None or row["num_lidar_pts"] + row["num_radar_pts"] < FEWEST_POINTS:
        return None
    corners = view_points(box.corners(), intrinsics, normalize=True)[:2]
    whole = np.concatenate([corners.min(1), corners.max(1)])
    limits = np.array([data["width"], data["height"]] * 2, np.float64)
    clipped = np.clip(whole, 0, limits)
    area, inside = (np.prod(np.maximum(b[2:] - b[:2], 0)) for b in (whole, clipped))
    if inside < LEAST_INSIDE * area or area == 0:  # one lies within the other: this is their overlap
        return None
    attribute = _attribute(nusc, row)
    return PerspectiveObject(
        name=name,
        box=clipped.tolist(),
        rotation=box.orientation.elements.tolist(),
        translation=box.center.tolist(),
        size=box.wlh.tolist(),
        attribute=ATTRIBUTE_NUMBERS[attribute] if attribute else NO_ATTRIBUTE,
        speed=float(np.linalg.norm(velocities[row["token"]])),
    )


def _attribute(nusc: NuScenes, row: dict) -> str:
    names = [nusc.get("attribute", token)["name"] for token in row["attribute_tokens"]]
    if len(names) > 1 and category_to_detection_name(row["category_name"]) is not None:
        raise UserError(f"annotation {row['token']} has {len(names)} attributes; the detection task allows one")
    return names[0] if len(names) == 1 else ""


def pose_of_row(row: dict) -> Tensor:
    """The pose (4, 4) of a row with a translation and a rotation."""
    rotation = torch.tensor(row["rotation"], dtype=torch.float64)
    if not abs(float(rotation.norm()) - 1) < 0.01:
        raise UserError(f"the rotation of row {row['token']} is no unit quaternion (w, x, y, z): {row['rotation']}")
    return se3.from_quaternion(rotation, torch.tensor(row["translation"], dtype=torch.float64))
