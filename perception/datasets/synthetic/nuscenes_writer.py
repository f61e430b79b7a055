"""The driving world as a data set in nuScenes' format: all tables of v1.0, images, LiDAR scans, maps and info files.

Scenes bear names that the devkit's splits know: up to eight training and two validation scenes are a `v1.0-mini`,
more are a `v1.0-trainval`. Key frames only; there is no radar. Each scene lies somewhere else in a map of its own. Info
files bear the names that recipes ask for, `infos_train` and `infos_val`, and those of the devkit's splits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from nuscenes.utils.splits import create_splits_scenes

from perception.datasets.driving.infos import write_infos
from perception.datasets.driving.nuscenes_tables import frames_of, open_tables
from perception.geometry import boxes3d, se3

from .driving_bodies import KINDS
from .driving_rigs import TRIGGERS, Rig, nuscenes_rig
from .driving_view import pose_of_ego, render, scan
from .driving_world import REACH, World, drivable_area
from .jpeg import write_jpeg
from .motion import planar_pose

if TYPE_CHECKING:
    from .driving import Params

START = 1_600_000_000_000_000  # of the first scene, in microseconds
BETWEEN_SCENES = 100_000_000
ANNOTATED_WITHIN = 60.0  # metres from the vehicle
MAP_METRES, MAP_PIXELS_PER_METRE = 400, 10

ATTRIBUTES = (
    *("vehicle.moving", "vehicle.stopped", "vehicle.parked", "cycle.with_rider", "cycle.without_rider"),
    *("pedestrian.sitting_lying_down", "pedestrian.standing", "pedestrian.moving"),
)
VISIBILITY = {"1": "v0-40", "2": "v40-60", "3": "v60-80", "4": "v80-100"}


def version_of(params: Params) -> str:
    """Name of the folder of tables."""
    return "v1.0-mini" if params.num_train <= 8 and params.num_val <= 2 else "v1.0-trainval"


def split_names(params: Params) -> dict[str, str]:
    """The devkit's name of each split."""
    prefix = "mini_" if version_of(params) == "v1.0-mini" else ""
    return {split: prefix + split for split in ("train", "val")}


def fill(folder: Path, params: Params, frame_is_done: Callable[[], None]) -> dict[str, dict[str, int]]:
    """Write everything into an empty folder.

    Args:
        folder: the data set's root.
        params: of the family.
        frame_is_done: called after each key frame.

    Returns:
        Numbers of scenes, frames and boxes of each split.
    """
    rig = nuscenes_rig(params.width, params.height, params.columns)
    tables = Tables(rig)
    names, counts = create_splits_scenes(), {}
    for place, (split, number, world) in enumerate(params.worlds()):
        name = names[split_names(params)[split]][number]
        rng = np.random.default_rng((params.seed, 2, place))
        before = len(tables.rows["sample_annotation"])
        _SceneWriter(folder, params, tables, world, name, START + place * BETWEEN_SCENES, rng).write(frame_is_done)
        count = counts.setdefault(split, {"scenes": 0, "frames": 0, "boxes": 0})
        count["scenes"] += 1
        count["frames"] += len(params.times)
        count["boxes"] += len(tables.rows["sample_annotation"]) - before
    version = version_of(params)
    tables.write(folder / version)
    opened = open_tables(folder, version)
    for split, name in split_names(params).items():
        frames = frames_of(opened, name)
        for file in dict.fromkeys((split, name)):
            write_infos(folder / f"infos_{file}.msgpack", version, name, frames)
    return counts


class Tables:
    """The rows of all tables; tokens follow from what rows stand for."""

    def __init__(self, rig: Rig):
        names = ("category", "attribute", "visibility", "instance", "sensor", "calibrated_sensor", "ego_pose", "log")
        self.rows: dict[str, list[dict]] = {
            name: [] for name in (*names, "scene", "sample", "sample_data", "sample_annotation", "map")
        }
        self.categories = {
            category: self.add("category", category, name=category, description="")
            for category in dict.fromkeys(kind.category for kind in KINDS.values())
        }
        self.attributes = {
            attribute: self.add("attribute", attribute, name=attribute, description="") for attribute in ATTRIBUTES
        }
        for token, level in VISIBILITY.items():
            share = level[1:].replace("-", " and ")
            text = f"visibility of whole object is between {share}%"
            self.rows["visibility"].append({"token": token, "level": level, "description": text})
        self.sensors = {camera.name: self.add("sensor", camera.name, modality="camera") for camera in rig.cameras}
        self.sensors["LIDAR_TOP"] = self.add("sensor", "LIDAR_TOP", modality="lidar")
        for row, channel in zip(self.rows["sensor"], self.sensors):
            row["channel"] = channel
        self.rig = rig

    def add(self, table: str, key: str, **fields: Any) -> str:
        """Append a row and return its token."""
        token = hashlib.md5(f"{table}/{key}".encode()).hexdigest()
        self.rows[table].append({"token": token, **fields})
        return token

    def write(self, folder: Path) -> None:
        """One JSON file for each table."""
        folder.mkdir(parents=True)
        for name, rows in self.rows.items():
            (folder / f"{name}.json").write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n")


class _SceneWriter:
    def __init__(
        self,
        folder: Path,
        params: Params,
        tables: Tables,
        world: World,
        name: str,
        start: int,
        rng: np.random.Generator,
    ):
        self.folder, self.params, self.tables, self.world = folder, params, tables, world
        self.name, self.start, self.rng = name, start, rng
        self.global_from_world = _draw_place(rng)
        self.instances = [hashlib.md5(f"instance/{name}/{k}".encode()).hexdigest() for k in range(len(world.actors))]
        self.calibrations = {
            sensor: self._calibration(sensor, pose, matrix)
            for sensor, pose, matrix in (
                *((camera.name, camera.ego_from_camera, camera.intrinsics) for camera in tables.rig.cameras),
                ("LIDAR_TOP", tables.rig.lidar.ego_from_lidar, None),
            )
        }

    def write(self, frame_is_done: Callable[[], None]) -> None:
        tables, name, frames = self.tables, self.name, len(self.params.times)
        log = tables.add("log", name, logfile=name, vehicle="n000", date_captured="2020-09-13", location="built-in")
        map_file = f"maps/{name}.png"
        self._write_map(self.folder / map_file)
        tables.add("map", name, category="semantic_prior", filename=map_file, log_tokens=[log])
        samples = [_token("sample", f"{name}/{k}") for k in range(frames)]
        scene = tables.add(
            "scene",
            name,
            log_token=log,
            nbr_samples=frames,
            first_sample_token=samples[0],
            last_sample_token=samples[-1],
            name=name,
            description="a crossing of two streets, drawn by a computer",
        )
        for number, time in enumerate(self.params.times.tolist()):
            stamp = self.start + round(time * 1e6)
            links = _neighbours(samples, number)
            tables.add("sample", f"{name}/{number}", timestamp=stamp, scene_token=scene, **links)
            self._write_frame(number, samples[number], time)
            frame_is_done()
        self._link()

    def _write_frame(self, number: int, sample: str, time: float) -> None:
        shares = np.zeros((2, len(self.world.actors)))
        for camera in self.tables.rig.cameras:
            moment = time + TRIGGERS[camera.name] / 1e6
            view = render(self.world, camera, moment, self.params.samples)
            shares += view.visible, view.alone
            path = self._add_data(camera.name, number, sample, moment, "jpg", camera.height, camera.width)
            write_jpeg(path, view.image)
        found, owners = scan(self.world, self.tables.rig.lidar, time, self.rng)
        path = self._add_data("LIDAR_TOP", number, sample, time, "pcd", 0, 0)
        columns = (found.points, 255 * found.intensity[:, None], found.ring[:, None].astype(np.float32))
        np.concatenate(columns, 1).astype("<f4").tofile(path)
        visibility = shares[0] / np.maximum(shares[1], 1)
        self._annotate(number, sample, time, visibility, self._points_inside(found.points, owners, time))

    def _add_data(
        self, channel: str, number: int, sample: str, time: float, fileformat: str, height: int, width: int
    ) -> Path:
        """Rows of a file and of the vehicle's pose when it was recorded; returns where the file belongs."""
        stamp, key = self.start + round(time * 1e6), f"{self.name}/{channel}"
        pose = self.global_from_world @ pose_of_ego(self.world, time)
        ego_pose = self.tables.add("ego_pose", f"{key}/{number}", timestamp=stamp, **_motion(pose))
        suffix = "pcd.bin" if fileformat == "pcd" else fileformat
        filename = f"samples/{channel}/{self.name}__{channel}__{stamp}.{suffix}"
        self.tables.add(
            "sample_data",
            f"{key}/{number}",
            sample_token=sample,
            ego_pose_token=ego_pose,
            calibrated_sensor_token=self.calibrations[channel],
            timestamp=stamp,
            fileformat=fileformat,
            is_key_frame=True,
            height=height,
            width=width,
            filename=filename,
            **_neighbours([_token("sample_data", f"{key}/{k}") for k in range(len(self.params.times))], number),
        )
        path = self.folder / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _annotate(self, number: int, sample: str, time: float, visibility: np.ndarray, points: np.ndarray) -> None:
        ego = pose_of_ego(self.world, time)[:2, 3]
        for k, actor in enumerate(self.world.actors):
            box = actor.box(time)
            if np.hypot(*(box[:2] - ego)) > ANNOTATED_WITHIN:
                continue
            length, width, height = actor.size
            pose = planar_pose(box[0], box[1], box[6], box[2])
            attribute = actor.attribute
            self.tables.add(
                "sample_annotation",
                f"{self.name}/{k}/{number}",
                sample_token=sample,
                instance_token=self.instances[k],
                visibility_token=str(1 + int(np.searchsorted([0.4, 0.6, 0.8], visibility[k], side="right"))),
                attribute_tokens=[self.tables.attributes[attribute]] if attribute else [],
                size=[width, length, height],
                num_lidar_pts=int(points[k]),
                num_radar_pts=0,
                **_motion(self.global_from_world @ pose),
            )

    def _points_inside(self, points: np.ndarray, owners: np.ndarray, time: float) -> np.ndarray:
        """Points of each actor that lie in its box; those of the ground below it are not its own."""
        if not self.world.actors:
            return np.zeros(0, np.int64)
        pose = torch.from_numpy(pose_of_ego(self.world, time) @ self.tables.rig.lidar.ego_from_lidar)
        placed = se3.transform_points(pose, torch.from_numpy(points).double())
        boxes = torch.from_numpy(np.stack([actor.box(time) for actor in self.world.actors]))
        inside = boxes3d.points_inside(placed, boxes).numpy()
        return (inside & (owners == np.arange(len(boxes))[:, None])).sum(1)

    def _link(self) -> None:
        """Join the annotations of each object, which are in the order of time."""
        own: dict[str, list[dict]] = {token: [] for token in self.instances}
        for row in self.tables.rows["sample_annotation"]:
            if row["instance_token"] in own:
                own[row["instance_token"]].append(row)
        for actor, (instance, rows) in zip(self.world.actors, own.items()):
            if not rows:
                continue
            tokens = [row["token"] for row in rows]
            for k, row in enumerate(rows):
                row.update(_neighbours(tokens, k))
            self.tables.rows["instance"].append(
                {
                    "token": instance,
                    "category_token": self.tables.categories[KINDS[actor.kind].category],
                    "nbr_annotations": len(rows),
                    "first_annotation_token": tokens[0],
                    "last_annotation_token": tokens[-1],
                }
            )

    def _calibration(self, channel: str, pose: np.ndarray, intrinsics: np.ndarray | None) -> str:
        return self.tables.add(
            "calibrated_sensor",
            f"{self.name}/{channel}",
            sensor_token=self.tables.sensors[channel],
            camera_intrinsic=[] if intrinsics is None else intrinsics.tolist(),
            **_motion(pose),
        )

    def _write_map(self, path: Path) -> None:
        """255 on the roads; x to the right and y up from the lower left corner, as the devkit reads it."""
        side = MAP_METRES * MAP_PIXELS_PER_METRE
        mask = np.zeros((side, side), np.uint8)
        for polygon in drivable_area():
            flat = np.pad(polygon, ((0, 0), (0, 1)))
            placed = flat @ self.global_from_world[:3, :3].T + self.global_from_world[:3, 3]
            pixels = placed[:, :2] * MAP_PIXELS_PER_METRE
            pixels[:, 1] = side - pixels[:, 1]
            cv2.fillPoly(mask, [np.round(pixels).astype(np.int32)], 255)
        path.parent.mkdir(exist_ok=True)
        _, encoded = cv2.imencode(".png", mask)
        path.write_bytes(encoded.tobytes())


def _draw_place(rng: np.random.Generator) -> np.ndarray:
    """Where and how turned the crossing lies in its map."""
    return planar_pose(*rng.uniform(REACH, MAP_METRES - REACH, 2), rng.uniform(-np.pi, np.pi))


def _motion(pose: np.ndarray) -> dict[str, list[float]]:
    """Translation and quaternion (w, x, y, z) of a pose."""
    rotation = se3.matrix_to_quaternion(torch.from_numpy(pose[:3, :3]))
    return {"translation": pose[:3, 3].tolist(), "rotation": rotation.tolist()}


def _token(table: str, key: str) -> str:
    return hashlib.md5(f"{table}/{key}".encode()).hexdigest()


def _neighbours(tokens: list[str], number: int) -> dict[str, str]:
    return {
        "prev": tokens[number - 1] if number else "",
        "next": tokens[number + 1] if number + 1 < len(tokens) else "",
    }
