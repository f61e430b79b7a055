"""One interface to the data sets of single-object tracking: tracklets, and the cloud of each of their frames."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from mmengine.logging import print_log
from torch import Tensor

from perception.engine.errors import UserError
from perception.geometry import boxes3d


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

    def _choose(self, min_first_points: int, max_gap: int | None) -> None:
        """Leave out what cannot be followed: see :class:`.kitti.KittiTracklets`.

        Raises:
            UserError: nothing is left.
        """
        if max_gap is not None:
            self.tracklets = [part for tracklet in self.tracklets for part in without_gaps(tracklet, max_gap)]
        before = len(self.tracklets)
        if min_first_points > 0:
            self.tracklets = [one for one in self.tracklets if self._points_in_first_box(one) >= min_first_points]
        if not self.tracklets:
            raise UserError(f"none of {before} tracklets has {min_first_points} points in its first box")
        if len(self.tracklets) < before:
            words = f"{before - len(self.tracklets)} of {before} tracklets are left out"
            print_log(f"{words}: less than {min_first_points} points in their first boxes", logger="current")

    def _points_in_first_box(self, tracklet: Tracklet) -> int:
        points = self.points(tracklet, 0).to(tracklet.boxes.dtype)
        return int(boxes3d.points_inside(points, tracklet.boxes[:1]).sum())


def in_order(rows: list[tuple[int, Tensor]]) -> tuple[tuple[int, ...], Tensor]:
    """Frame numbers and boxes (F, 7) of rows, sorted by frame."""
    rows = sorted(rows, key=lambda row: row[0])
    return tuple(frame for frame, _ in rows), torch.stack([box for _, box in rows])


def without_gaps(tracklet: Tracklet, max_gap: int) -> list[Tracklet]:
    """Parts of a tracklet, cut where more than ``max_gap`` frames are absent; parts of one box are left out.

    Names of parts have the number of the first frame behind them.
    """
    cuts = [i for i in range(1, len(tracklet)) if tracklet.frames[i] - tracklet.frames[i - 1] > max_gap + 1]
    if not cuts:
        return [tracklet]
    parts = []
    for start, end in zip([0, *cuts], [*cuts, len(tracklet)], strict=True):
        if end - start > 1:
            frames = tracklet.frames[start:end]
            name = f"{tracklet.name}/{frames[0]}"
            parts.append(replace(tracklet, name=name, frames=frames, boxes=tracklet.boxes[start:end]))
    return parts
