"""Frames of a multi-view video, read when they are needed: a folder of images for each frame, or a video file for each
camera."""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from perception.datasets.images import UnreadableImageError, open_image
from perception.studio.errors import SceneError
from perception.studio.findings import counted
from perception.studio.image_files import SUFFIXES

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm")
FRAME_FOLDER = re.compile(r"(?:frame_?)?(\d+)")
SLACK = 0.5  # of a frame's duration, by which cameras may differ in time
EXPECTED = "expected folders 0000, 0001, ... with images of all cameras, or a video file (cam00.mp4) of each camera"


class VideoFrames(ABC):
    """The pictures of all cameras at all times.

    Attributes:
        frames: their number.
        cameras: names of all cameras, in the order of their rows.
        train, test: rows of cameras to train on, and of those held out.
        size: width and height in pixels at which pictures are given.
    """

    frames: int
    cameras: list[str]
    train: list[int]
    test: list[int]
    size: tuple[int, int]

    def read(self, frame: int, camera: int) -> np.ndarray:
        """One picture, uint8 (H, W, 3). Any thread may call this.

        Raises:
            SceneError: it cannot be read, or has another shape than the first frame's.
        """
        picture = self._picture(frame, camera)
        if picture.shape[:2] != self.size[::-1]:
            if abs(picture.shape[1] / picture.shape[0] * self.size[1] / self.size[0] - 1) > 0.02:
                raise SceneError(
                    f"frame {frame} of {self.cameras[camera]} is {picture.shape[1]} "
                    f"x {picture.shape[0]} pixels, another "
                    f"shape than {self.size[0]} x {self.size[1]}"
                )
            picture = cv2.resize(picture, self.size, interpolation=cv2.INTER_AREA)
        return picture

    @abstractmethod
    def stored_size(self, camera: int) -> tuple[int, int]:
        """Width and height of a camera's pictures as they are stored."""

    @abstractmethod
    def path(self, camera: int) -> Path:
        """The file of a camera's first picture."""

    @abstractmethod
    def _picture(self, frame: int, camera: int) -> np.ndarray:
        """One picture as it is stored."""


class FrameFolders(VideoFrames):
    """`0000/images/cam00.png`, or `0000/cam00.png`: a folder for each frame.

    Args:
        data: folder of the video.
        folders: of the frames, in order.
        downscale_factor: whose `images_2` is read where every frame has it.
        max_frames: only so many; 0 for all.

    Raises:
        SceneError: a frame's number is missing, or frames have pictures of different cameras.
    """

    def __init__(self, data: Path, folders: Sequence[Path], downscale_factor: int, max_frames: int):
        numbers = [_number(folder) for folder in folders]
        for first, second in pairwise(numbers):
            if second != first + 1:
                what = "twice" if second == first else f"not {first + 1}"
                raise SceneError(f"{data} has folders of the frames {first} and {second}, but {what}")
        folders = folders[: _limit(data, len(folders), max_frames)]
        self._files = [_images_of(_image_folder(folder, downscale_factor)) for folder in folders]
        stems = [[path.stem for path in files] for files in self._files]
        faults = []
        for folder, names in zip(folders, stems):
            faults += [f"{folder} has no picture of {name}" for name in stems[0] if name not in names]
            faults += [
                f"{folder} has {name}, of which {folders[0].name} has none" for name in names if name not in stems[0]
            ]
        if faults:
            raise SceneError(counted(faults))
        self.frames, self.cameras = len(folders), stems[0]

    def path(self, camera: int) -> Path:
        return self._files[0][camera]

    def stored_size(self, camera: int) -> tuple[int, int]:
        picture = self._picture(0, camera)
        return picture.shape[1], picture.shape[0]

    def _picture(self, frame: int, camera: int) -> np.ndarray:
        path = self._files[frame][camera]
        try:
            with open_image(path) as image:
                return np.asarray(image.convert("RGB"))
        except (UnreadableImageError, OSError) as error:
            raise SceneError(f"cannot read {path}: {error}") from None


class VideoFiles(VideoFrames):
    """`cam00.mp4`: a file for each camera. One decoder per camera stays open, and goes on where it is.

    Frames are counted, and their times compared, by the packets in the files, not by what their headers state.

    Args:
        data: folder of the video.
        files: of the cameras, in order.
        max_frames: only so many; 0 for all.

    Raises:
        SceneError: a file cannot be read, or cameras have different numbers of frames or are out of step.
    """

    def __init__(self, data: Path, files: Sequence[Path], max_frames: int):
        self._readers = [_VideoFile(path) for path in files]
        self.cameras = [path.stem for path in files]
        counts = [len(reader.times) for reader in self._readers]
        if len(set(counts)) > 1 and not 0 < max_frames <= min(counts):
            usual = max(set(counts), key=counts.count)
            others = [f"{name} has {count} frames" for name, count in zip(self.cameras, counts) if count != usual]
            raise SceneError(
                f"{data}: {counted(others)}, others {usual}: cut them alike, or "
                f"pass --max-frames {min(counts)} to use what "
                "all have"
            )
        self.frames = _limit(data, min(counts), max_frames)
        self._check_times()

    def path(self, camera: int) -> Path:
        return self._readers[camera].path

    def stored_size(self, camera: int) -> tuple[int, int]:
        return self._readers[camera].size

    def _picture(self, frame: int, camera: int) -> np.ndarray:
        return self._readers[camera].read(frame)

    def _check_times(self) -> None:
        """Raise unless all cameras take their frames at the same times, counted from their first one."""
        first = self._readers[0].times[: self.frames] - self._readers[0].times[0]
        period = float(np.median(np.diff(first))) if self.frames > 1 else 1.0
        for name, reader in zip(self.cameras, self._readers):
            times = reader.times[: self.frames] - reader.times[0]
            late = np.flatnonzero(np.abs(times - first) > SLACK * period)
            if len(late):
                frame = int(late[0])
                raise SceneError(
                    f"{name} is out of step: its frame {frame} is at {times[frame]:.3f} "
                    f"s, that of {self.cameras[0]} at "
                    f"{first[frame]:.3f} s"
                )


class _VideoFile:
    """One video, decoded forwards; the last picture is kept."""

    def __init__(self, path: Path):
        self.path, self._lock = path, threading.Lock()
        self._container = self._frames = None
        self._last: tuple[int, np.ndarray] | None = None
        import av  # takes a while, and folders of images do without

        try:
            with av.open(str(path)) as container:
                if not container.streams.video:
                    raise SceneError(f"{path} has no pictures")
                stream = container.streams.video[0]
                self.size = stream.width, stream.height
                base = float(stream.time_base)
                stamps = [packet.pts for packet in container.demux(stream) if packet.size and packet.pts is not None]
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise SceneError(f"cannot read {path}: {error}") from None
        if not stamps:
            raise SceneError(f"{path} has no frames")
        self._stamps = sorted(stamps)
        self.times = np.array(self._stamps) * base

    def read(self, frame: int) -> np.ndarray:
        """A picture, uint8 (H, W, 3)."""
        with self._lock:
            if self._last is None or self._last[0] != frame:
                self._last = (frame, self._decode(frame))
            return self._last[1]

    def _decode(self, frame: int) -> np.ndarray:
        import av

        wanted = self._stamps[frame]
        try:
            if self._container is None:
                self._container = av.open(str(self.path))
                self._frames = self._container.decode(video=0)
            if self._last is None or self._last[0] != frame - 1:
                self._container.seek(wanted, stream=self._container.streams.video[0])
                self._frames = self._container.decode(video=0)
            for picture in self._frames:
                if picture.pts is not None and picture.pts >= wanted:
                    if picture.pts > wanted:
                        break
                    return picture.to_ndarray(format="rgb24")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise SceneError(f"{self.path}: frame {frame} cannot be decoded: {error}") from None
        raise SceneError(f"{self.path}: frame {frame} cannot be decoded: the file is damaged or cut off")


def find_frames(data: Path, downscale_factor: int = 1, max_frames: int = 0) -> VideoFrames:
    """The frames of a folder, in one layout or the other.

    Raises:
        SceneError: there are none, only one, or cameras and frames do not go together.
    """
    files = sorted(path for path in data.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES and path.name[0] != ".")
    folders = [path for path in data.iterdir() if path.is_dir() and FRAME_FOLDER.fullmatch(path.name)]
    if files and folders:
        raise SceneError(
            f"{data} holds videos ({files[0].name}) and folders of frames ({folders[0].name}): remove one kind"
        )
    if files:
        frames: VideoFrames = VideoFiles(data, files, max_frames)
    elif folders:
        frames = FrameFolders(data, sorted(folders, key=_number), downscale_factor, max_frames)
    else:
        raise SceneError(f"no frames found under {data}: {EXPECTED}")
    if frames.frames < 2:
        raise SceneError(f"{data} has one frame only: a video has several; {EXPECTED}")
    _check_names(data, frames.cameras)
    return frames


def camera_number(name: str) -> int | None:
    """The number at the end of a camera's name: 7 of cam07, cam_07 and scene_7."""
    match = re.search(r"(\d+)$", name)
    return int(match[1]) if match else None


def find_camera(names: Sequence[str], wanted: str) -> int:
    """The row of a camera by its name, or else by the number in it, where that is one camera's: cam_00 for cam00.

    Raises:
        SceneError: there is none.
    """
    if wanted in names:
        return list(names).index(wanted)
    rows = [row for row, name in enumerate(names) if camera_number(name) == camera_number(wanted) is not None]
    if len(rows) != 1:
        raise SceneError(
            f"there is no camera {wanted} to test on, but {names[0]} to {names[-1]}: "
            f"name one of them with --test-cameras"
        )
    return rows[0]


def _check_names(data: Path, names: Sequence[str]) -> None:
    """Raise where names sort otherwise than the numbers in them: rows of poses would be anybody's guess."""
    numbers = [camera_number(name) for name in names]
    if None not in numbers and numbers != sorted(numbers):
        row = next(row for row in range(1, len(names)) if numbers[row] < numbers[row - 1])
        raise SceneError(
            f"{data}: by name {names[row]} comes after {names[row - 1]}, by "
            f"number before it, so that nothing says which row of "
            "poses is whose: fill up the numbers with zeros"
        )


def _limit(data: Path, count: int, max_frames: int) -> int:
    if max_frames > count:
        raise SceneError(f"--max-frames {max_frames}: {data} has {count} frames")
    return max_frames or count


def _number(folder: Path) -> int:
    return int(FRAME_FOLDER.fullmatch(folder.name)[1])


def _image_folder(folder: Path, factor: int) -> Path:
    smaller = folder / f"images_{factor}"
    if factor > 1 and smaller.is_dir():
        return smaller
    return folder / "images" if (folder / "images").is_dir() else folder


def _images_of(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    if not files:
        raise SceneError(f"{folder} holds no images ({', '.join(SUFFIXES)})")
    return files
