"""KITTI tracking (Geiger et al., "Are we ready for autonomous driving?", CVPR 2012) as tracklets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from torch import Tensor

from perception.datasets.demo_data import how_to_make
from perception.engine.errors import UserError
from perception.geometry import boxes3d

from .kitti_files import read_calibration, read_labels, read_velodyne
from .tracklet import Tracklet, TrackletSet, in_order

SPLITS = {"train": tuple(range(17)), "val": (17, 18), "test": (19, 20)}
"""Scenes of the splits that all published single-object tracking uses; all have public labels."""
CATEGORIES = ("Car", "Van", "Pedestrian", "Cyclist")


@DATASETS.register_module()
class KittiTracklets(TrackletSet):
    """Tracklets of KITTI's tracking benchmark, in the Velodyne's frame.

    Args:
        data_root: folder with ``calib``, ``label_02`` and ``velodyne`` (KITTI's ``training``).
        split: ``"train"`` (scenes 0-16), ``"val"`` (17, 18) or ``"test"`` (19, 20); or numbers of scenes.
        categories: of the objects.
        calibration: ``"rectified"`` takes boxes from the rectified camera's frame, as KITTI defines it; ``"released"``
            leaves R_rect out, as Open3DSOT's loader does: published scores rest on boxes that are off by some 0.3 m at
            40 m.
        min_first_points: tracklets with fewer points in their first box are left out: a tracker that is shown nothing
            cannot know what to follow. Published scores leave none out.
        max_gap: tracklets are cut where more frames than this are absent. None leaves them whole, as published scores
            have them: a target then seems to jump.

    Raises:
        UserError: a folder, a file or a calibration's entry is missing, or a line cannot be read.
    """

    def __init__(
        self,
        data_root: str,
        split: Literal["train", "val", "test"] | Sequence[int] = "train",
        categories: Sequence[str] = CATEGORIES,
        calibration: Literal["rectified", "released"] = "rectified",
        min_first_points: int = 0,
        max_gap: int | None = None,
    ):
        self.root, self.categories = Path(data_root), tuple(categories)
        if calibration not in ("rectified", "released"):
            raise UserError(f'calibration is "rectified" or "released", not {calibration!r}')
        self.calibration = calibration
        for folder in ("calib", "label_02", "velodyne"):
            if not (self.root / folder).is_dir():
                command = how_to_make(self.root)
                remedy = f"; make the built-in streets with: {command}" if command else ""
                raise UserError(
                    f"{self.root} has no folder {folder}: KITTI tracking is expected there, its `training`{remedy}"
                )
        if isinstance(split, str) and split not in SPLITS:
            raise UserError(f"KITTI has no split {split!r}: there are {', '.join(SPLITS)}")
        self.scenes = [f"{number:04d}" for number in (SPLITS[split] if isinstance(split, str) else split)]
        self.tracklets = [tracklet for scene in self.scenes for tracklet in self._read(scene)]
        if not self.tracklets:
            raise UserError(f"no {', '.join(self.categories)} is labelled in the scenes {', '.join(self.scenes)}")
        self._choose(min_first_points, max_gap)
        self._say()

    def cloud(self, scene: str, frame: int) -> Tensor:
        """See :class:`TrackletSet`; empty where KITTI has no file (scene 0001, frames 177-180)."""
        path = self._cloud_file(scene, frame)
        return read_velodyne(path) if path.is_file() else torch.zeros(0, 3)

    def state(self) -> str:
        """See :class:`TrackletSet`."""
        words = [self.calibration, *self.categories]
        for scene in self.scenes:
            words += [(self.root / folder / f"{scene}.txt").read_text() for folder in ("calib", "label_02")]
            files = sorted((self.root / "velodyne" / scene).glob("*.bin"))
            words += [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
        return "\n".join(words)

    def _cloud_file(self, scene: str, frame: int) -> Path:
        return self.root / "velodyne" / scene / f"{frame:06d}.bin"

    def _read(self, scene: str) -> list[Tracklet]:
        rectified = read_calibration(self.root / "calib" / f"{scene}.txt", self.calibration == "rectified")
        # Rotations are written with seven digits: the transpose is their inverse to some micrometres at 50 m only.
        try:
            velodyne_from_rect = torch.linalg.inv(rectified)
        except torch.linalg.LinAlgError as error:
            raise UserError(f"{self.root / 'calib' / scene}.txt: its matrices have no inverse") from error
        rows: dict[tuple[str, int], list[tuple[int, Tensor]]] = defaultdict(list)
        for label in read_labels(self.root / "label_02" / f"{scene}.txt"):
            if label.category in self.categories:
                box = boxes3d.from_kitti(label.numbers[None], velodyne_from_rect)[0]
                rows[label.category, label.track].append((label.frame, box))
        tracklets = []
        for (category, track), labelled in rows.items():
            name = f"{scene}/{track:04d}/{category}"
            frames, boxes = in_order(labelled)
            if len(set(frames)) < len(frames):
                raise UserError(f"{self.root / 'label_02' / scene}.txt: {name} has two boxes in one frame")
            tracklets.append(Tracklet(name, category, scene, frames, boxes))
        return tracklets

    def _say(self) -> None:
        frames = sum(len(tracklet) for tracklet in self.tracklets)
        absent = {
            (tracklet.scene, frame)
            for tracklet in self.tracklets
            for frame in tracklet.frames
            if not self._cloud_file(tracklet.scene, frame).is_file()
        }
        words = f"{len(self.tracklets)} tracklets, {frames} frames; boxes by the {self.calibration} calibration"
        if absent:
            words += f"; {len(absent)} frames have no cloud (first: {'/'.join(map(str, min(absent)))})"
        print_log(f"{self.root}: {words}", logger="current")
