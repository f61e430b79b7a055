"""Whole tracklets, to track from their first frame on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmengine.registry import DATASETS
from torch import Tensor
from torch.utils.data import Dataset

from .examining import ExaminedTracklets
from .tracklet import Tracklet, TrackletSet


@dataclass(frozen=True)
class TrackletClouds:
    """A tracklet and where its clouds are. Clouds are read when they are asked for: a tracklet has up to a thousand."""

    tracklets: TrackletSet
    tracklet: Tracklet

    def __len__(self) -> int:
        return len(self.tracklet)

    def points(self, index: int) -> Tensor:
        """Points (N, 3) of the ``index``-th frame."""
        return self.tracklets.points(self.tracklet, index)


@DATASETS.register_module()
class TrackletSequences(ExaminedTracklets, Dataset):
    """Tracklets for one-pass evaluation: the tracker is given the first box and finds the others.

    Args:
        tracklets: config of a :class:`.tracklet.TrackletSet`.

    An item is ``inputs``, a :class:`TrackletClouds`.
    """

    def __init__(self, tracklets: dict):
        self.tracklets: TrackletSet = DATASETS.build(tracklets)

    def __len__(self) -> int:
        return len(self.tracklets.tracklets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(inputs=TrackletClouds(self.tracklets, self.tracklets.tracklets[index]))
