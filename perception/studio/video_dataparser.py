"""Videos of fixed cameras for nerfstudio: `poses_bounds.npy` beside folders of frames or a video file per camera."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from torch import Tensor

from perception.geometry.poses import average_pose
from perception.geometry.se3 import invert
from perception.studio.depth_range import frustum_box
from perception.studio.errors import SceneError
from perception.studio.findings import counted
from perception.studio.intrinsics import fit_size
from perception.studio.llff_dataparser import BOUND_FACTOR, LLFFViews
from perception.studio.poses_bounds import FILE, PosesBounds, read_poses_bounds
from perception.studio.transforms import check_folder
from perception.studio.video_frames import VideoFrames, find_camera, find_frames


@dataclass
class MultiviewVideoDataParserConfig(DataParserConfig):
    """Reads `poses_bounds.npy` and the frames of fixed cameras: folders `0000/images/cam00.png`, or `cam00.mp4`."""

    _target: type = field(default_factory=lambda: MultiviewVideo)
    data: Path = Path("data/meetroom/discussion")
    """Folder of the video."""
    downscale_factor: int = 1
    """How many times smaller pictures are made, by averaging; folders `images_2` in the frames are read for 2."""
    test_cameras: tuple[str, ...] = ("cam00",)
    """Names of the cameras that are held out of training."""
    max_frames: int = 0
    """Read only so many frames from the first one on; 0 for all."""
    near: float | None = None
    """Smallest depth of the scene in the file's units, instead of the bounds in the file."""
    far: float | None = None
    """Largest depth of the scene in the file's units, instead of the bounds in the file."""


@dataclass
class MultiviewVideo(DataParser):
    """Cameras of all splits in the frame of LLFF scenes: places and bounds times 1 / (0.75 smallest near bound), then
    the frame in which the average pose is the identity.

    The i-th camera by name has the i-th row of poses. The training split has all but the test cameras, the others have
    these. ``metadata`` holds `video` (:class:`~perception.studio.video_frames.VideoFrames`), `near`, `far` and `llff`.
    """

    config: MultiviewVideoDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train") -> DataparserOutputs:
        scene = self._scene
        rows = scene.video.train if split == "train" else scene.video.test
        views = LLFFViews(
            tuple(scene.video.cameras), scene.cameras.camera_to_worlds, scene.bounds, tuple(scene.video.test)
        )
        near, far = float(scene.bounds[:, 0].min()), float(scene.bounds[:, 1].max())
        return DataparserOutputs(
            image_filenames=[scene.video.path(row) for row in rows],
            cameras=scene.cameras[torch.tensor(rows)],
            scene_box=SceneBox(aabb=frustum_box(scene.cameras, near, far)),
            metadata={"video": scene.video, "near": near, "far": far, "llff": views},
            dataparser_transform=scene.transform[:3].float(),
            dataparser_scale=scene.scale,
        )

    @cached_property
    def _scene(self) -> _Scene:
        config = self.config
        check_folder(config.data)
        if config.downscale_factor < 1 or config.max_frames < 0:
            raise SceneError("--downscale-factor must be at least 1, and --max-frames at least 0")
        if not config.data.is_dir():
            raise SceneError(f"{config.data} is a file: pass the folder of the video")
        video = find_frames(config.data, config.downscale_factor, config.max_frames)
        table = self._table(video)
        video.test = sorted({find_camera(video.cameras, name) for name in config.test_cameras})
        video.train = [row for row in range(len(video.cameras)) if row not in video.test]
        if not video.train or not video.test:
            raise SceneError(
                f"of {len(video.cameras)} cameras some must be trained on and some tested on: --test-cameras"
            )
        scale = 1 / (BOUND_FACTOR * float(table.bounds[:, 0].min()))
        transform = invert(average_pose(table.poses))
        poses = (transform @ table.poses)[:, :3]
        poses[..., 3] *= scale
        cameras = _cameras(video, table, poses.float(), config.downscale_factor)
        return _Scene(video, cameras, (table.bounds * scale).float(), transform, scale)

    def _table(self, video: VideoFrames) -> PosesBounds:
        """The poses of all cameras, from the folder or from those of the frames."""
        data = self.config.data
        places = [data] if (data / FILE).is_file() else []
        if not places:
            places = sorted({path.parent for path in data.glob(f"*/{FILE}")})
        if not places:
            raise SceneError(f"there is no {FILE} in {data}, nor in the folders of its frames")
        table = read_poses_bounds(places[0], self.config.near, self.config.far)
        first = np.load(places[0] / FILE)
        for place in places[1:]:
            other = np.load(place / FILE, allow_pickle=False)
            if other.shape != first.shape or not np.allclose(other, first):
                raise SceneError(
                    f"{place / FILE} has other poses than {places[0].name}: cameras that move are not supported"
                )
        if len(table) != len(video.cameras):
            sentence = f"{data}: found {len(video.cameras)} cameras but {len(table)} rows of poses"
            if len(table) == video.frames:
                raise SceneError(
                    f"{sentence}, as many as frames: it looks like one moving camera, which is not supported"
                )
            raise SceneError(f"{sentence}: remove the surplus ones ({video.cameras[0]} to {video.cameras[-1]})")
        return table


class _Scene(NamedTuple):
    video: VideoFrames
    cameras: Cameras  # of all rows
    bounds: Tensor  # (N, 2) in the cameras' units
    transform: Tensor  # (4, 4) and then scale
    scale: float


def _cameras(video: VideoFrames, table: PosesBounds, poses: Tensor, factor: int) -> Cameras:
    """Cameras (N) for pictures that are so many times smaller than the table says."""
    faults = []
    for row, (name, (width, height)) in enumerate(zip(video.cameras, table.sizes.tolist())):
        stored = video.stored_size(row)
        if not fit_size((width, height), stored):
            turned = ": height and width look swapped" if fit_size((height, width), stored) else ""
            faults.append(
                f"{video.path(row)} ({name}) is {stored[0]} x {stored[1]} pixels, but row {row} of {FILE} gives width "
                f"{width:g} and height {height:g}{turned}"
            )
        elif stored != video.stored_size(0):
            faults.append(
                f"{name} is {stored[0]} x {stored[1]} pixels, unlike {video.cameras[0]}: all cameras must have one size"
            )
    if not bool((table.sizes == table.sizes[0]).all()):
        faults.append(f"{table.path} gives cameras of several sizes, of which a video has one")
    if faults:
        raise SceneError(counted(faults))
    width, height = (max(1, round(side / factor)) for side in table.sizes[0].tolist())
    video.size = (width, height)
    count = len(video.cameras)
    actual = torch.tensor([[width, height]] * count, dtype=torch.float64)
    ratio = actual / table.sizes
    focal = table.focals * ratio
    centre = actual / 2 if table.centres is None else table.centres * ratio
    return Cameras(
        camera_to_worlds=poses,
        fx=focal[:, :1].float(),
        fy=focal[:, 1:].float(),
        cx=centre[:, :1].float(),
        cy=centre[:, 1:].float(),
        width=actual[:, :1].long(),
        height=actual[:, 1:].long(),
        camera_type=CameraType.PERSPECTIVE,
    )


video_spec = DataParserSpecification(
    config=MultiviewVideoDataParserConfig(),
    description="videos of fixed cameras: poses_bounds.npy, folders of frames or a video file of each camera",
)
"""For nerfstudio's `dataparser_configs`."""
