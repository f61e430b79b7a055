"""One interface to the data sets of single-object tracking: tracklets, and the cloud of each of their frames."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tracklet:
    """One object in the frames in which it is labelled.

    Attributes:
        name: unique within its data set: scene, number and category.
        category: of the object.
        scene: name of the sequence of clouds.
        frames: numbers of the clouds, ascending. There may be gaps.
        boxes: (F, 7) float64, see :mod:`perception.geometry.boxes3d`, in the frame of the clouds that the data set
            gives.
    """

    name: str
    category: str
    scene: str
    frames: tuple[int, ...]
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.frames)


class TrackletSet(ABC):
    """Tracklets and their clouds. Instances are pickled to workers and hold no clouds.

    Attributes:
        tracklets: in the order of the data set.
    """

    tracklets: list[Tracklet]

    @abstractmethod
    def cloud(self, scene: str, frame: int) -> Tensor:
        """Points (N, 3) of a cloud, float32 in a sensor's frame or float64 in a map's, metres, z up.

        Raises:
            UserError: the file cannot be read.
        """

    @abstractmethod
    def state(self) -> str:
        """Words that change whenever a box or a cloud does, for caches."""

    def fingerprint(self) -> str:
        """A short name of :meth:`state`."""
        return hashlib.sha256(self.state().encode()).hexdigest()[:16]

    def points(self, tracklet: Tracklet, index: int) -> Tensor:
        """Points (N, 3) of the ``index``-th frame of a tracklet."""
        return self.cloud(tracklet.scene, tracklet.frames[index])


def in_order(rows: list[tuple[int, Tensor]]) -> tuple[tuple[int, ...], Tensor]:
    """Frame numbers and boxes (F, 7) of rows, sorted by frame."""
    rows = sorted(rows, key=lambda row: row[0])
    return tuple(frame for frame, _ in rows), torch.stack([box for _, box in rows])
