"""Training samples of both kinds of trackers, drawn from tracklets.

A sample is drawn at random and drawn anew, from another frame, where it has too few points. All random choices follow
from the seed that the batch sampler gives (:mod:`perception.datasets.resumable_epochs`), so that a resumed run draws
what an uninterrupted one would.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS
from torch import Tensor
from torch.utils.data import Dataset

from perception.datasets.resumable import SeededIndex
from perception.engine.errors import UserError
from perception.geometry import boxes3d
from perception.geometry.points import box_cloud

from .cache import CroppedClouds
from .crops import SearchArea, inside_box, resample, size_channels
from .examining import ExaminedTracklets
from .tracklet import Tracklet, TrackletSet

_TRIALS = 1000
"""Draws in a row without a usable sample, after which the data are given up."""
_YAW = math.radians(5.0)


class _Samples(ExaminedTracklets, Dataset):
    """Every frame of every tracklet, a number of times.

    Args:
        tracklets: config of a :class:`.tracklet.TrackletSet`.
        cache_dir: folder of the file with the points near boxes.
        area: settings of :class:`.crops.SearchArea`.
        candidates: samples of a frame; the first takes the true box as the previous one, the others perturb it. Where
            there is only one, Siamese trackers have their search area perturbed nevertheless.
        balance: power p by which frequent categories are held back: a frame of a category with n frames counts as
            n^-p. 0 keeps the frequencies, 0.5 brings them nearer to each other, 1 makes all categories equal.
    """

    def __init__(
        self,
        tracklets: dict,
        cache_dir: str,
        area: dict | None = None,
        candidates: int = 4,
        balance: float = 0.0,
    ):
        self.tracklets: TrackletSet = DATASETS.build(tracklets)
        self.clouds = CroppedClouds(self.tracklets, cache_dir)
        self.area, self.candidates = SearchArea(**(area or {})), candidates
        self._ends = np.cumsum([len(tracklet) for tracklet in self.tracklets.tracklets])
        self._places = balanced_places(self.tracklets.tracklets, balance) if balance else np.arange(self._ends[-1])

    def __len__(self) -> int:
        return len(self._places) * self.candidates

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng(index.seed if isinstance(index, SeededIndex) else None)
        for _ in range(_TRIALS):
            turn, candidate = divmod(int(index), self.candidates)
            place = int(self._places[turn])
            number = int(np.searchsorted(self._ends, place, side="right"))
            frame = place - (int(self._ends[number - 1]) if number else 0)
            sample = self._sample(number, frame, candidate, rng)
            if sample is not None:
                return sample
            index = int(rng.integers(len(self)))
        raise UserError(
            f"of {_TRIALS} samples in a row none had enough points: are boxes and clouds of the data in the same frame?"
        )

    @abstractmethod
    def _sample(self, number: int, frame: int, candidate: int, rng: np.random.Generator) -> dict[str, Any] | None:
        """A sample of a frame of a tracklet; None if it has too few points."""

    def _frame(self, number: int, frame: int) -> tuple[Tensor, Tensor]:
        """Points and box of a frame."""
        return self.clouds.points(number, frame), self.tracklets.tracklets[number].boxes[frame]


def balanced_places(tracklets: Sequence[Tracklet], power: float) -> np.ndarray:
    """As many places among all frames as there are frames, each category's share being its count's power of 1 - p.

    Args:
        tracklets: whose frames, one after the other, are the places.
        power: p; places of frequent categories are left out evenly, those of rare ones repeat.
    """
    categories = np.repeat([one.category for one in tracklets], [len(one) for one in tracklets])
    names, counts = np.unique(categories, return_counts=True)
    shares = counts ** (1.0 - power)
    ends = np.round(len(categories) * np.cumsum(shares) / shares.sum()).astype(int)
    chosen = []
    for name, start, end in zip(names, [0, *ends[:-1]], ends, strict=True):
        own = np.flatnonzero(categories == name)
        chosen.append(own[np.arange(end - start) * len(own) // max(end - start, 1)])
    return np.concatenate(chosen)


def _uniform_offset(rng: np.random.Generator) -> Tensor:
    """(dx, dy, dz, dyaw): up to 0.3 m in the plane and up to 0.3 times 5 degrees."""
    x, y, yaw = rng.uniform(-0.3, 0.3, 3)
    return torch.tensor([x, y, 0.0, yaw * _YAW], dtype=torch.float64)


def _normal_offset(rng: np.random.Generator) -> Tensor:
    """(dx, dy, dz, dyaw): variances of 1 m^2 in the plane and 5 square degrees, as P2B draws its search areas."""
    x, y, yaw = rng.multivariate_normal(np.zeros(3), np.diag([1.0, 1.0, 5.0]))
    return torch.tensor([x, y, 0.0, math.radians(yaw)], dtype=torch.float64)


@DATASETS.register_module()
class SiameseSamples(_Samples):
    """Template, search area and where the target is in it (P2B, arXiv 2005.13888, section 4.1).

    Args:
        tracklets, cache_dir, area, candidates, balance: see the base class.
        template_points: of the template, which merges the first and the previous frame.
        search_points: of the search area.
        size_channels: append the logarithms of the target's length, width and height to every point.
        degrees: unit of the yaw that is learned; P2B's configurations have degrees, else radians.

    An item is ``inputs``: ``template`` (M, 3 + C) and ``search`` (N, 3 + C); ``targets``: ``box`` (4,), ``on_target``
    (N,) and ``size`` (3,), see :class:`projects.adaformer.losses.SiameseTargets`; in the reference box's frame.
    """

    def __init__(
        self,
        tracklets: dict,
        cache_dir: str,
        area: dict | None = None,
        candidates: int = 4,
        template_points: int = 512,
        search_points: int = 1024,
        size_channels: bool = True,
        degrees: bool = False,
        balance: float = 0.0,
    ):
        super().__init__(tracklets, cache_dir, area, candidates, balance)
        self.template_points, self.search_points = template_points, search_points
        self.size_channels, self.degrees = size_channels, degrees

    def _sample(self, number: int, frame: int, candidate: int, rng: np.random.Generator) -> dict[str, Any] | None:
        first, previous = self._frame(number, 0), self._frame(number, max(frame - 1, 0))
        points, box = self._frame(number, frame)
        shifted = boxes3d.moved_by(previous[1], _uniform_offset(rng)) if candidate else previous[1]
        template = torch.cat([inside_box(*first), inside_box(previous[0], shifted)])
        perturbed = candidate or self.candidates == 1  # else the target would always lie at the area's centre
        reference = boxes3d.moved_by(box, _normal_offset(rng)) if perturbed else box
        search = self.area.crop(points, reference)
        if min(len(template), len(search)) <= 20:
            return None
        template, _ = resample(template, self.template_points, rng)
        search, _ = resample(search, self.search_points, rng)
        target = boxes3d.relative_to(box, reference)
        half = target[3:6].float() / 2
        on_target = (boxes3d.to_box_frame(search, target.float()).abs() < half).all(1)
        if self.size_channels:
            template = torch.cat([template, size_channels(box, len(template))], 1)
            search = torch.cat([search, size_channels(box, len(search))], 1)
        return dict(
            inputs=dict(template=template, search=search),
            targets=dict(box=_label(target, self.degrees), on_target=on_target.float(), size=box[[4, 3, 5]].float()),
        )


def _label(box: Tensor, degrees: bool = False) -> Tensor:
    """Centre and yaw (4,) float32 of a box."""
    yaw = boxes3d.wrap_angle(box[6:7])
    return torch.cat([box[:3], yaw.rad2deg() if degrees else yaw]).float()


@DATASETS.register_module()
class MotionSamples(_Samples):
    """The surroundings of a box in two frames, and how the target moved (M2-Track, arXiv 2203.01730, section 4.1).

    Args:
        tracklets, cache_dir, area, candidates, balance: see the base class.
        points: of each frame.
        augment: move the target and its points at random, by itself in both frames.

    An item is ``inputs``: ``points`` (2N, 5), ``box_cloud`` (2N, 9); ``targets``: see
    :class:`projects.adaformer.losses.MotionTargets`; in the reference box's frame.
    """

    def __init__(
        self,
        tracklets: dict,
        cache_dir: str,
        area: dict | None = None,
        candidates: int = 4,
        points: int = 1024,
        augment: bool = True,
        balance: float = 0.0,
    ):
        super().__init__(tracklets, cache_dir, area, candidates, balance)
        self.num_points, self.augment = points, augment

    def _sample(self, number: int, frame: int, candidate: int, rng: np.random.Generator) -> dict[str, Any] | None:
        previous, current = self._frame(number, max(frame - 1, 0)), self._frame(number, frame)
        if len(inside_box(*previous, scale=1.0)) <= 10:
            return None
        if self.augment:
            previous, current = (move_target(*pair, rng) for pair in (previous, current))
        reference = boxes3d.moved_by(previous[1], _uniform_offset(rng)) if candidate else previous[1]
        before, after = self.area.crop(previous[0], reference), self.area.crop(current[0], reference)
        if len(after) <= 20:
            return None
        before, _ = resample(before, self.num_points, rng)
        after, _ = resample(after, self.num_points, rng)
        own = boxes3d.relative_to(reference, reference).float()
        old, new = (boxes3d.relative_to(box, reference).float() for box in (previous[1], current[1]))
        on_target = torch.cat([boxes3d.points_inside(p, b[None], 1.25)[0] for p, b in ((before, old), (after, new))])
        moved = boxes3d.relative_to(current[1], previous[1])
        return dict(
            inputs=motion_inputs(before, after, own, certain=candidate == 0),
            targets=dict(
                box=_label(new),
                previous_box=_label(old),
                motion=_label(moved),
                on_target=on_target.long(),
                box_cloud=torch.cat([box_cloud(before, old), box_cloud(after, new)]),
                size=current[1][[4, 3, 5]].float(),
            ),
        )


def motion_inputs(before: Tensor, after: Tensor, box: Tensor, certain: bool) -> dict[str, Tensor]:
    """What a motion tracker is given.

    Args:
        before, after: points (N, 3) of the previous and the current frame.
        box: (7,) of the previous frame.
        certain: the box is the true one: points count as inside or outside it, 1 or 0, and not 0.8 or 0.2.

    Returns:
        ``points`` (2N, 5) as x, y, z, time, mask; ``box_cloud`` (2N, 9), 0 in the current frame.
    """
    inside = boxes3d.points_inside(before, box[None], 1.25)[0].float()
    mask = inside if certain else 0.2 + 0.6 * inside
    time = torch.tensor([0.0, 0.1]).repeat_interleave(len(before))
    mask = torch.cat([mask, torch.full((len(after),), 0.5)])
    points = torch.cat([torch.cat([before, after]), time[:, None], mask[:, None]], 1)
    known = box_cloud(before, box)
    return dict(points=points, box_cloud=torch.cat([known, torch.zeros_like(known)]))


def move_target(points: Tensor, box: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Move a box (7,) and the points (N, 3) in and just around it: by up to 0.3 m and 10 degrees, and mirrored.

    Each mirror, along and across the box, is drawn with probability 1/2; one along it also turns the box around.
    """
    shift, yaw = rng.uniform(-0.3, 0.3, 3), rng.uniform(-10.0, 10.0)
    along, across = (bool(flip) for flip in rng.random(2) < 0.5)
    return moved_target(points, box, torch.from_numpy(shift), math.radians(yaw), along, across)


def moved_target(
    points: Tensor, box: Tensor, shift: Tensor, yaw: float, along: bool, across: bool
) -> tuple[Tensor, Tensor]:
    """:func:`move_target` by stated amounts: ``shift`` (3,) in metres in the box's frame, ``yaw`` in radians."""
    inside = boxes3d.points_inside(points, box[None], 1.25)[0]
    local = boxes3d.to_box_frame(points[inside], box)
    local = local * local.new_tensor([-1.0 if along else 1.0, -1.0 if across else 1.0, 1.0])
    placed = boxes3d.moved_by(box, torch.cat([shift.to(box), box.new_tensor([yaw])]))
    moved = points.clone()
    moved[inside] = boxes3d.from_box_frame(local, placed).to(points.dtype)
    if along:
        placed = placed + placed.new_tensor([0, 0, 0, 0, 0, 0, math.pi])
    return moved, placed
