"""nuScenes (Caesar et al., CVPR 2020) as tracklets, through the official devkit: key frames, in the map's frame."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from nuscenes import NuScenes
from nuscenes.utils.splits import create_splits_scenes
from torch import Tensor

from perception.datasets.clouds.cloud import UnreadableCloudError
from perception.datasets.clouds.reading import NUSCENES, read_cloud
from perception.datasets.driving.nuscenes_tables import open_tables, pose_of_row
from perception.engine.errors import UserError
from perception.geometry import se3

from .tracklet import Tracklet, TrackletSet, in_order

CATEGORIES = {
    "car": ("vehicle.car",),
    "pedestrian": tuple(
        f"human.pedestrian.{kind}" for kind in ("adult", "child", "construction_worker", "police_officer")
    ),
    "truck": ("vehicle.truck",),
    "trailer": ("vehicle.trailer",),
    "bus": ("vehicle.bus.bendy", "vehicle.bus.rigid"),
}
"""What published single-object tracking counts as a category."""


@DATASETS.register_module()
class NuScenesTracklets(TrackletSet):
    """Tracklets of nuScenes' key frames (two a second), boxes and clouds in the map's frame, float64.

    Args:
        data_root: folder with ``samples`` and the tables, ``v1.0-trainval`` for instance.
        version: of the tables.
        split: one of the devkit's: published trackers train on ``train_track`` and are tested on ``val``.
        categories: keys of :data:`CATEGORIES`.
        min_first_points, max_gap: see :class:`.kitti.KittiTracklets`; points as the tables count them. Published tests
            have 1 and None.

    Raises:
        UserError: tables or files are missing, or the split has none of the categories.
    """

    def __init__(
        self,
        data_root: str,
        version: str = "v1.0-trainval",
        split: str = "train_track",
        categories: Sequence[str] = tuple(CATEGORIES),
        min_first_points: int = 0,
        max_gap: int | None = None,
    ):
        self.root, self.categories = Path(data_root), tuple(categories)
        if unknown := [name for name in self.categories if name not in CATEGORIES]:
            raise UserError(f"nuScenes has no category {unknown[0]!r}: there are {', '.join(CATEGORIES)}")
        splits = create_splits_scenes()
        if split not in splits:
            raise UserError(f"nuScenes has no split {split!r}: there are {', '.join(splits)}")
        nusc = open_tables(self.root, version)
        names = set(splits[split])
        self._clouds: dict[tuple[str, int], tuple[str, tuple[float, ...]]] = {}
        self._counts: dict[tuple[str, int], int] = {}  # of points, by instance and frame
        self.tracklets = []
        for scene in nusc.scene:
            if scene["name"] in names:
                self.tracklets += self._read(nusc, scene)
        if not self.tracklets:
            raise UserError(f"{self.root}/{version}: no {', '.join(self.categories)} is in the split {split}")
        self._choose(min_first_points, max_gap)
        frames = sum(map(len, self.tracklets))
        print_log(f"{self.root}: {len(self.tracklets)} tracklets, {frames} frames of {split}", logger="current")

    def cloud(self, scene: str, frame: int) -> Tensor:
        """See :class:`TrackletSet`."""
        file, pose = self._clouds[scene, frame]
        try:
            cloud = read_cloud(self.root / file, NUSCENES)
        except (UnreadableCloudError, OSError) as error:
            raise UserError(f"{self.root / file}: {error}") from error
        points = torch.from_numpy(cloud.xyz).double()
        return se3.transform_points(torch.tensor(pose, dtype=torch.float64).view(4, 4), points)

    def state(self) -> str:
        """See :class:`TrackletSet`."""
        words = [f"{one.name} {one.frames} {_digest(one.boxes)}" for one in self.tracklets]
        for file, pose in self._clouds.values():
            found = (self.root / file).stat()
            words.append(f"{file} {found.st_size} {found.st_mtime_ns} {pose}")
        return "\n".join(words)

    def _points_in_first_box(self, tracklet: Tracklet) -> int:
        # Not of the cloud: published protocols leave out what the tables count no point in.
        return self._counts[tracklet.name.split("/")[1], tracklet.frames[0]]

    def _read(self, nusc: NuScenes, scene: dict) -> list[Tracklet]:
        kinds = {kind: name for name in self.categories for kind in CATEGORIES[name]}
        rows: dict[tuple[str, str], list[tuple[int, Tensor]]] = defaultdict(list)
        token, frame = scene["first_sample_token"], 0
        while token:
            sample = nusc.get("sample", token)
            if "LIDAR_TOP" not in sample["data"]:
                raise UserError(f"sample {token} of {self.root} has no LIDAR_TOP")
            lidar = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
            if not (self.root / lidar["filename"]).is_file():
                raise UserError(f"{self.root / lidar['filename']}, which the tables name, is not there")
            pose = pose_of_row(nusc.get("ego_pose", lidar["ego_pose_token"])) @ pose_of_row(
                nusc.get("calibrated_sensor", lidar["calibrated_sensor_token"])
            )
            self._clouds[scene["name"], frame] = lidar["filename"], tuple(pose.flatten().tolist())
            for row in (nusc.get("sample_annotation", name) for name in sample["anns"]):
                if row["category_name"] in kinds:
                    key = kinds[row["category_name"]], row["instance_token"]
                    rows[key].append((frame, _box(row)))
                    self._counts[row["instance_token"], frame] = row["num_lidar_pts"]
            token, frame = sample["next"], frame + 1
        return [
            Tracklet(f"{scene['name']}/{instance}/{category}", category, scene["name"], *in_order(labelled))
            for (category, instance), labelled in rows.items()
        ]


def _box(row: dict) -> Tensor:
    pose = pose_of_row(row)
    width, length, height = row["size"]
    return torch.tensor([*pose[:3, 3].tolist(), length, width, height, float(se3.heading(pose))], dtype=torch.float64)


def _digest(boxes: Tensor) -> str:
    return hashlib.sha256(boxes.numpy().tobytes()).hexdigest()
