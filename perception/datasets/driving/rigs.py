"""Key frames of camera rigs with their neighbours in time, for MMEngine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from torch import Tensor

from perception.engine.errors import UserError
from perception.geometry import se3

from .examining import ExaminedRigs
from .infos import CAMERAS, CLASSES, Frame, box_array, decode_frame, read_infos


@DATASETS.register_module()
class NuScenesRigs(ExaminedRigs, BaseDataset):
    """Frames of an info file, each with the images of its cameras and of neighbouring key frames.

    An item is a dict with ``token``, ``scene``, ``timestamp``, ``offsets`` (the neighbours that there are, ascending; 0
    is the frame itself), ``views`` (for each offset, for each camera: ``path``, ``intrinsics`` (3, 3),
    ``camera_from_lidar`` (4, 4) from the LiDAR's frame of the frame itself, ``width``, ``height``, ``name``),
    ``ego_from_lidar``, ``global_from_ego``, ``objects`` and ``camera_objects`` (lists of `PerspectiveObject`).

    Args:
        data_root: the data set's folder.
        ann_file: the info file, relative to it.
        frame_offsets: key frames that belong to an item, 0 among them; -1 is the one before. Those that would lie in
            another scene are left out.
        cameras: names in the order of the model's slots.
        metainfo: ``classes`` in the order of labels; default: all ten of nuScenes, alphabetically.
        pipeline, test_mode: see MMEngine's ``BaseDataset``.
        max_refetch: how many other frames are tried in place of one that the pipeline rejects.

    Raises:
        UserError: the info file is missing, or a frame lacks a camera.
    """

    METAINFO: ClassVar[dict] = dict(classes=CLASSES)

    def __init__(
        self,
        data_root: str,
        ann_file: str,
        *,
        frame_offsets: Sequence[int] = (0,),
        cameras: Sequence[str] = CAMERAS,
        metainfo: dict | None = None,
        pipeline: Sequence[Any] = (),
        test_mode: bool = False,
        max_refetch: int = 1000,
    ):
        if 0 not in frame_offsets or len(set(frame_offsets)) != len(frame_offsets):
            raise ValueError(f"frame_offsets must be different numbers, 0 among them, not {tuple(frame_offsets)}")
        self.frame_offsets, self.cameras = tuple(sorted(frame_offsets)), tuple(cameras)
        super().__init__(
            ann_file=ann_file,
            metainfo=metainfo,
            data_root=data_root,
            pipeline=pipeline,
            test_mode=test_mode,
            max_refetch=max_refetch,
        )

    def load_data_list(self) -> list[dict]:
        """One entry for each frame, still encoded: what a large split takes in memory is the size of its file."""
        infos = read_infos(self.ann_file)
        self._metainfo |= {"version": infos.version, "split": infos.split}
        return [dict(frame=bytes(raw)) for raw in infos.frames]

    def prepare_data(self, idx: int) -> dict | None:
        """The item after the pipeline; ``sample_idx`` keeps the seed that a resumable sampler gave."""
        item = self.item(idx)
        item["sample_idx"] = idx
        return self.pipeline(item)

    def frame(self, idx: int) -> Frame:
        """The frame of a number, as the info file has it."""
        return decode_frame(self.get_data_info(idx)["frame"])

    def item(self, idx: int) -> dict:
        """What the pipeline starts from."""
        current = self.frame(idx)
        frames = {offset: self._neighbour(int(idx), offset, current) for offset in self.frame_offsets}
        present = {offset: frame for offset, frame in frames.items() if frame is not None}
        return dict(
            token=current.token,
            scene=current.scene,
            timestamp=current.timestamp,
            offsets=tuple(present),
            views=[self._views(frame, current) for frame in present.values()],
            ego_from_lidar=np.array(current.ego_from_lidar),
            global_from_ego=np.array(current.global_from_ego),
            objects=dict(
                boxes=box_array(current.objects),
                names=current.objects.names,
                points=np.add(current.objects.lidar_points, current.objects.radar_points).astype(np.int64),
            ),
            camera_objects=[current.cameras[name].objects for name in self.cameras],
        )

    def _neighbour(self, idx: int, offset: int, current: Frame) -> Frame | None:
        if offset == 0:
            return current
        if not 0 <= idx + offset < len(self):
            return None
        frame = self.frame(idx + offset)
        return frame if frame.scene_token == current.scene_token else None

    def _views(self, frame: Frame, current: Frame) -> list[dict]:
        absent = [name for name in self.cameras if name not in frame.cameras]
        if absent:
            raise UserError(
                f"frame {frame.token} of {self.ann_file} has no {absent[0]}; it has {', '.join(frame.cameras)}: set "
                "cameras of the data set to the rig's"
            )
        lidar_from_current = se3.invert(neighbour_motion(frame, current))
        views = []
        for name in self.cameras:
            camera = frame.cameras[name]
            camera_from_lidar = se3.invert(torch.tensor(camera.lidar_from_camera, dtype=torch.float64))
            views.append(
                dict(
                    name=name,
                    path=str(Path(self.data_root or "") / camera.path),
                    width=camera.width,
                    height=camera.height,
                    intrinsics=np.array(camera.intrinsics),
                    camera_from_lidar=(camera_from_lidar @ lidar_from_current).numpy(),
                )
            )
        return views


def neighbour_motion(frame: Frame, current: Frame) -> Tensor:
    """Pose (4, 4) from a neighbour's LiDAR frame to the current one's, see :func:`motion_between`; float64."""
    if frame is current:
        return torch.eye(4, dtype=torch.float64)
    poses = (frame.global_from_ego, current.global_from_ego, current.ego_from_lidar)
    return motion_between(*(torch.tensor(pose, dtype=torch.float64) for pose in poses))


def motion_between(then: Tensor, now: Tensor, ego_from_lidar: Tensor) -> Tensor:
    """Pose (4, 4) from the LiDAR's frame of one time to that of another, through the vehicle's poses.

    The LiDAR's place on the vehicle is the current one's for both, as in BEVFormer: within a scene it does not change.

    Args:
        then, now: the vehicle's poses (4, 4) in a fixed frame.
        ego_from_lidar: (4, 4) of now.
    """
    return se3.invert(ego_from_lidar) @ se3.invert(now) @ then @ ego_from_lidar
