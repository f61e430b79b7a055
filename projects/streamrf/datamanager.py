"""Rays of one frame of a multi-view video at a time."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from perception.studio.camera_checks import check_cameras, check_forward_facing
from perception.studio.datamanager import RayDataManager, RayDataManagerConfig
from perception.studio.depth_range import find_depth_range
from perception.studio.errors import SceneError
from perception.studio.images import ImageStore
from perception.studio.scene_checks import SceneReport

VISIBLE = 25
"""Of 255; a pixel that changes by more in some channel has changed visibly."""
EVERY = 7  # pixel is looked at, for how much frames differ


class Video(Protocol):
    """What a data parser of videos gives as ``metadata["video"]``."""

    frames: int
    train: Sequence[int]
    test: Sequence[int]

    def read(self, frame: int, camera: int) -> np.ndarray:
        """One picture, uint8 (H, W, 3), of the size that its camera has."""


@dataclass
class StreamDataManagerConfig(RayDataManagerConfig):
    """Data of a multi-view video, of which one frame is in memory, and a few are read ahead."""

    _target: type = field(default_factory=lambda: StreamDataManager)
    frames_ahead: int = 1
    """Frames that are decoded while one is trained on."""


class VideoDataset(InputDataset):
    """The pictures of some cameras in one frame, the one that was shown last."""

    def __init__(self, dataparser_outputs, video: Video, rows: Sequence[int]):
        super().__init__(dataparser_outputs)
        self.video, self.rows, self.frame = video, list(rows), 0

    def get_numpy_image(self, image_idx: int) -> np.ndarray:
        return self.video.read(self.frame, self.rows[image_idx])


class Difference(NamedTuple):
    """How much the training pictures of two frames differ."""

    frames: int  # from one to the other
    mean: float  # absolute difference, of colours in [0, 1]
    visible: float  # share of the pixels


class FrameStore(ImageStore):
    """The pixels of all training cameras in one frame, as 8-bit numbers.

    ``difference`` is that to the frame that was shown before, where there was another one.

    Args:
        dataset: whose pictures they are.
        ahead: frames to decode in the background.
    """

    def __init__(self, dataset: VideoDataset, ahead: int):
        super().__init__(dataset.cameras)
        self.dataset, self._ahead = dataset, ahead
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="frames")
        self._coming: dict[int, Future[Tensor]] = {}
        self._table: Tensor | None = None
        self.difference: Difference | None = None

    def show(self, frame: int) -> None:
        """Hold the pixels of another frame, and begin to read those after it.

        Raises:
            SceneError: a picture cannot be read.
        """
        before, last, self.dataset.frame = self._table, self.dataset.frame, frame
        coming = self._coming.pop(frame, None)
        self._table = self._read(frame) if coming is None or coming.cancelled() else coming.result()
        if before is not None and last != frame:
            change = (self._table[::EVERY].short() - before[::EVERY].short()).abs()
            visible = (change.amax(1) > VISIBLE).float().mean()
            self.difference = Difference(frame - last, float(change.float().mean()) / 255, float(visible))
        wanted = range(frame + 1, min(frame + 1 + self._ahead, self.dataset.video.frames))
        for number in [number for number in self._coming if number not in wanted]:
            self._coming.pop(number).cancel()
        for number in wanted:
            if number not in self._coming:
                self._coming[number] = self._reader.submit(self._read, number)

    def colours(self, pixels: Tensor, background: Tensor) -> Tensor:
        return self._pixels()[pixels].float() / 255

    def _pixels(self) -> Tensor:
        if self._table is None:
            self.show(self.dataset.frame)
        return self._table

    def _read(self, frame: int) -> Tensor:
        """(P, 3)"""
        pictures = []
        for row, size in zip(self.dataset.rows, self.sizes):
            picture = self.dataset.video.read(frame, row)
            if picture.shape != (*size, 3):
                raise SceneError(
                    f"camera {row} has pictures of {size} pixels, but frame {frame} one of {picture.shape}"
                )
            pictures.append(torch.from_numpy(picture.reshape(-1, 3)))
        return torch.cat(pictures)

    def _checksum(self, view: int) -> int:
        return zlib.crc32(self._pixels()[self.first[view] : self.first[view + 1]].numpy())


class StreamDataManager(RayDataManager):
    """Draws rays of the frame that was shown last; frame 0 at the start."""

    config: StreamDataManagerConfig

    @property
    def video(self) -> Video:
        """All frames.

        Raises:
            SceneError: the data parser reads single images.
        """
        return video_of(self.train_dataparser_outputs.metadata)

    def show_frame(self, frame: int) -> None:
        """Train on and evaluate another frame.

        Raises:
            SceneError: there is no such frame, or it cannot be read.
        """
        if not 0 <= frame < self.video.frames:
            raise SceneError(f"the video has the frames 0 to {self.video.frames - 1}, not {frame}")
        self.eval_dataset.frame = frame
        if isinstance(getattr(self, "pixels", None), FrameStore) and self.test_mode == "val":
            self.pixels.show(frame)

    def _check(self) -> SceneReport:
        """Look at the cameras; the data parser has looked at the frames."""
        splits = {split: self.dataparser.get_dataparser_outputs(split) for split in ("train", self.test_split)}
        report = SceneReport(self.config.dataparser.data, splits)
        for outputs in splits.values():
            check_cameras(outputs.cameras, outputs.image_filenames)
        if self.config.scene_use.ndc:
            check_forward_facing(list(splits.values()))
        report.depth_range = find_depth_range(self.config.dataparser, splits["train"])
        if self.test_mode == "val":
            report.say()
        return report

    def _dataset(self, outputs) -> VideoDataset:
        video = video_of(outputs.metadata)
        train = outputs is self.train_dataparser_outputs
        return VideoDataset(outputs, video, video.train if train else video.test)

    def make_store(self, dataset, *, need_alpha: bool) -> FrameStore:
        return FrameStore(dataset, self.config.frames_ahead)


def video_of(metadata: dict) -> Video:
    """The frames that a data parser has found.

    Raises:
        SceneError: it knows of none.
    """
    if "video" not in metadata:
        raise SceneError(
            "the method needs a video of several cameras: folders 0000, 0001, ... of images, or a video file of each "
            "camera, as the data parser multiview-video-data reads them"
        )
    return metadata["video"]
