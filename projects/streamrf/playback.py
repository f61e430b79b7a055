"""Pictures of a stream: a camera path over time, or the cameras of a video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perception.engine.atomic import output_folder, replacing
from perception.engine.errors import UserError
from perception.radiance.metrics import psnr
from perception.studio.camera_paths import read_camera_path
from perception.studio.parsers import read_by
from perception.studio.progress import progress_bar
from perception.studio.video_dataparser import MultiviewVideoDataParserConfig
from projects.streamrf.container import StreamReader
from projects.streamrf.delta import FieldState
from projects.streamrf.field import grid_of
from projects.streamrf.rendering import render_camera


class Sink(Protocol):
    """Takes pictures in order."""

    def add(self, picture: Tensor) -> None:
        """(H, W, 3), of which 0 to 1 is shown."""


def render_path(folder: Path, path: Path, out: Path, device: str, fps: int) -> int:
    """Render a camera path while the stream plays once. Returns the number of pictures.

    Args:
        folder: of the stream.
        path: JSON that nerfstudio's viewer exports.
        out: `.mp4` file, or folder for PNG files.
        device: where.
        fps: of the file.

    Raises:
        UserError: stream or path cannot be read, the path states what is not rendered, or `out` cannot be written.
    """
    reader, cameras = StreamReader(folder), read_camera_path(path)
    if cameras.crop is not None or len(cameras.eyes) > 1:
        raise UserError(f"{path}: crops and stereo cameras are not rendered; export the path without them")
    count = len(cameras)
    with _sink(out, fps) as sink, progress_bar("Rendering the camera path", count) as advance:
        shown, grid = -1, None
        for number in range(count):
            frame = number * reader.frames // count
            if frame != shown:
                shown, grid = frame, _grid(reader.decode(frame), device)
            sink.add(render_camera(grid, reader.base.rendering, cameras.eyes[0][number : number + 1])["rgb"].cpu())
            advance()
    return count


def render_views(folder: Path, data: MultiviewVideoDataParserConfig, out: Path, device: str, fps: int) -> list[float]:
    """Render the test cameras of a video at all times of a stream. Returns the PSNR of each frame.

    Several cameras go into files of their own, named after them.

    Raises:
        UserError: stream or video cannot be read, are of different cameras or lengths, or `out` cannot be written.
    """
    reader = StreamReader(folder)
    outputs = read_by(data).setup().get_dataparser_outputs("test")
    video = outputs.metadata["video"]
    if video.frames < reader.frames:
        raise UserError(f"{folder} has {reader.frames} frames, the video {data.data} only {video.frames}")
    found: list[list[float]] = [[] for _ in range(reader.frames)]
    total = reader.frames * len(video.test)
    with progress_bar("Rendering the test cameras", total) as advance:
        for number, row in enumerate(video.test):
            place = out if len(video.test) == 1 else out.with_name(f"{out.stem}_{video.cameras[row]}{out.suffix}")
            with _sink(place, fps) as sink:
                for frame in range(reader.frames):
                    grid = _grid(reader.decode(frame), device)
                    shown = render_camera(grid, reader.base.rendering, outputs.cameras[number : number + 1])["rgb"]
                    sink.add(shown.cpu())
                    target = torch.from_numpy(video.read(frame, row)).float() / 255
                    found[frame].append(float(psnr(shown.cpu().clamp(0, 1), target)))
                    advance()
    return [sum(values) / len(values) for values in found]


def _grid(state: FieldState, device: str):
    return grid_of(state).to(device)


@contextmanager
def _sink(out: Path, fps: int) -> Iterator[Sink]:
    if out.suffix.lower() != ".mp4":
        yield _Folder(output_folder(out))
        return
    with replacing(out) as file:
        sink = _Mp4(file, fps)
        yield sink
        sink.close()


class _Folder:
    def __init__(self, folder: Path):
        self._folder, self._count = folder, 0

    def add(self, picture: Tensor) -> None:
        with replacing(self._folder / f"{self._count:05d}.png") as file:
            Image.fromarray(_bytes(picture)).save(file, format="PNG")
        self._count += 1


class _Mp4:
    def __init__(self, file, fps: int):
        self._container = av.open(file, "w", format="mp4")
        self._stream, self._fps, self._count = None, fps, 0

    def add(self, picture: Tensor) -> None:
        pixels = _bytes(picture)
        pixels = pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2]  # the format has even sides only
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._fps, options={"crf": "16"})
            self._stream.height, self._stream.width = pixels.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts = self._count
        self._container.mux(self._stream.encode(frame))
        self._count += 1

    def close(self) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()


def _bytes(picture: Tensor) -> np.ndarray:
    """uint8 by truncation, as the released code writes them."""
    return (picture.clamp(0, 1) * 255).byte().numpy()
