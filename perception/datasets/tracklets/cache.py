"""The surroundings of every box of a training set in one file, which workers and processes map into memory."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from torch import Tensor
from tqdm import tqdm

from perception.engine.atomic import locked, output_folder, replacing

from .tracklet import TrackletSet

_REACH = 10.0
"""Metres around a box, along each axis: beyond what any perturbed search area needs."""


class CroppedClouds:
    """Points near each box, from a file that is made where it does not exist or no longer fits the data.

    A cloud of 120 000 points is read once instead of at each of a run's thousands of draws.

    Args:
        tracklets: the data.
        folder: of the file, whose name follows from the data.
        progress: show how far the making is.
    """

    def __init__(self, tracklets: TrackletSet, folder: str | Path, progress: bool = True):
        self.tracklets = tracklets
        self.path = Path(folder).expanduser() / f"{tracklets.fingerprint()}.index"
        if is_main_process() and not self.path.is_file():
            with locked(output_folder(self.path.parent), wait=True):  # another run may be making it
                if not self.path.is_file():
                    self._make(progress)
        barrier()
        with np.load(self.path) as index:
            self._starts, self._counts, self._first = index["starts"], index["counts"], index["first"]
        self._map: np.ndarray | None = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_map": None}  # workers map the file themselves

    def points(self, number: int, index: int) -> Tensor:
        """Points (N, 3) float64 near the box of the ``index``-th frame of the ``number``-th tracklet."""
        if self._map is None:
            self._map = np.memmap(self.path.with_suffix(".points"), np.float32, "r")
        row = self._first[number] + index
        local = np.array(self._map[self._starts[row] : self._starts[row] + self._counts[row]]).reshape(-1, 3)
        return torch.from_numpy(local).double() + self.tracklets.tracklets[number].boxes[index, :3]

    def _make(self, progress: bool) -> None:
        tracklets = self.tracklets.tracklets
        first = np.cumsum([0, *(len(tracklet) for tracklet in tracklets)])
        starts, counts = np.zeros(first[-1], np.int64), np.zeros(first[-1], np.int64)
        by_cloud: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        for number, tracklet in enumerate(tracklets):
            for index, frame in enumerate(tracklet.frames):
                by_cloud[tracklet.scene, frame].append((number, index))
        written = 0
        with replacing(self.path.with_suffix(".points")) as file:
            for (scene, frame), places in tqdm(
                sorted(by_cloud.items()), desc="points near boxes", unit="cloud", disable=not progress
            ):
                cloud = self.tracklets.cloud(scene, frame)
                for number, index in places:
                    near = _surroundings(cloud, tracklets[number].boxes[index])
                    row = first[number] + index
                    starts[row], counts[row] = written, near.size
                    file.write(near.tobytes())
                    written += near.size
            if not written:
                file.write(np.zeros(3, np.float32).tobytes())  # an empty file cannot be mapped
        with replacing(self.path) as file:
            np.savez(file, starts=starts, counts=counts, first=first)


def _surroundings(cloud: Tensor, box: Tensor) -> np.ndarray:
    """Points (M, 3) float32 near a box, relative to its centre: places on a map need more digits than float32 has."""
    local = cloud.to(box.dtype) - box[:3]
    return local[(local.abs() <= box[3:6].max() / 2 + _REACH).all(1)].float().numpy()
