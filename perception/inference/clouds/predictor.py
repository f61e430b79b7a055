"""Follows the targets of a sequence of clouds, whatever model does so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from perception.datasets.clouds.cloud import Cloud
from perception.geometry import boxes3d, se3
from perception.inference.scan import Source

from .clusters import Clustering
from .first_boxes import Boxes, FirstBox
from .model import CloudTracker, Target

_TRAIL = 200
"""Places of a target that are remembered for pictures."""


@dataclass(frozen=True)
class Track:
    """A target in one cloud.

    Attributes:
        identity, category: as it began.
        number: of the target in its sequence, from 1.
        box: (7,) float64.
        score: in [0, 1]; NaN for none.
        points_in_search, status: see :class:`.model.Step`; ``"given"`` where the box was given.
        trail: (K, 2) where its centre was, up to now.
    """

    identity: str
    category: str
    number: int
    box: Tensor
    score: float
    points_in_search: int
    status: str
    trail: Tensor


@dataclass(frozen=True)
class Tracks:
    """All targets in one cloud.

    Attributes:
        frame: ``"sensor"``, or ``"world"`` where there are poses: that of boxes and trails.
        tracks: of them.
        missed: clouds that were not there, or could not be read, since the last one.
        refused: targets that could not begin here, and why.
        world_from_sensor: (4, 4) float64; the unit matrix without poses.
    """

    frame: str
    tracks: list[Track]
    missed: int
    refused: dict[str, str]
    world_from_sensor: Tensor


@dataclass
class _Followed:
    """A target and what is told of it."""

    identity: str
    category: str
    number: int
    target: Target
    trail: list[list[float]] = field(default_factory=list)

    def track(self, score: float, points: int, status: str) -> Track:
        box = self.target.box
        self.trail = [*self.trail, box[:2].tolist()][-_TRAIL:]
        trail = torch.tensor(self.trail, dtype=torch.float64)
        return Track(self.identity, self.category, self.number, box, score, points, status, trail)


@dataclass(frozen=True)
class _Prepared:
    """A cloud (N, 3) in the frame in which targets are followed."""

    source: Source
    points: Tensor
    world_from_sensor: Tensor


class TrackingPredictor:
    """A :class:`perception.inference.predicting.SequencePredictor`.

    Args:
        tracker: the model.
        first: boxes with which targets begin.
        clustering: how boxes are found in the first cloud of a sequence that has none in ``first``.
    """

    def __init__(self, tracker: CloudTracker, first: Boxes, clustering: Clustering | None = None) -> None:
        self._tracker, self._first, self._clustering = tracker, first, clustering

    def begin(self, sources: Sequence[Source]) -> None:
        self._sources = {source.name: place for place, source in enumerate(sources)}
        self._missed = [source.details.missed for source in sources]
        self._followed: list[_Followed] = []
        self._done, self._begun = -1, 0

    def prepare(self, source: Source, sample: Cloud) -> _Prepared:
        pose = source.details.world_from_sensor
        points = torch.from_numpy(sample.xyz)
        if pose is None:
            return _Prepared(source, points, torch.eye(4, dtype=torch.float64))
        world = torch.tensor(pose, dtype=torch.float64).view(4, 4)
        return _Prepared(source, se3.transform_points(world, points.double()), world)

    def step(self, prepared: _Prepared) -> Tracks:
        source = prepared.source
        place = self._sources[source.name]
        between = place - self._done - 1
        missed = between + sum(self._missed[self._done + 1 : place + 1])
        tracks = self._follow(prepared.points, missed if self._done >= 0 else 0)
        new, refused = self._start(prepared, first=self._done < 0)
        self._done = place
        frame = "sensor" if source.details.world_from_sensor is None else "world"
        return Tracks(frame, tracks + new, missed, refused, prepared.world_from_sensor)

    def state(self) -> dict[str, Any]:
        followed = [{**vars(one), "target": vars(one.target).copy()} for one in self._followed]
        return {"followed": followed, "done": self._done, "begun": self._begun}

    def restore(self, sources: Sequence[Source], state: dict[str, Any]) -> None:
        self.begin(sources)
        self._done, self._begun = state["done"], state["begun"]
        self._followed = [_Followed(**{**one, "target": Target(**one["target"])}) for one in state["followed"]]

    def _follow(self, points: Tensor, missed: int) -> list[Track]:
        targets = [one.target for one in self._followed]
        before = [target.box[:2] for target in targets]
        for target in targets if missed else ():
            # Where clouds are missing, a target is looked for where it would be by now.
            target.box = torch.cat([target.box[:2] + missed * target.motion, target.box[2:]])
        steps = self._tracker.step(targets, [points] * len(targets))
        for target, place in zip(targets, before, strict=True) if missed else ():
            target.motion = (target.box[:2] - place) / (missed + 1)
        return [
            one.track(step.score, step.points_in_search, step.status)
            for one, step in zip(self._followed, steps, strict=True)
        ]

    def _start(self, prepared: _Prepared, first: bool) -> tuple[list[Track], dict[str, str]]:
        tracks, refused = [], {}
        for begun in self._beginning(prepared, first):
            box = begun.box
            if begun.frame == "sensor":
                box = boxes3d.transform(box[None], prepared.world_from_sensor)[0]
            inside = int(boxes3d.points_inside(prepared.points.double(), box[None]).sum())
            if not inside:
                refused[begun.identity] = "its first box contains no points"
                continue
            self._begun += 1
            target = self._tracker.begin(prepared.points, box)
            followed = _Followed(begun.identity, begun.category, self._begun, target)
            self._followed.append(followed)
            tracks.append(followed.track(float("nan"), inside, "given"))
        return tracks, refused

    def _beginning(self, prepared: _Prepared, first: bool) -> Sequence[FirstBox]:
        source = prepared.source
        given = [box for box in self._first.get(source.sequence, ()) if box.source == source.name]
        if self._clustering is None or not first:
            return given
        points = prepared.points.double()
        local = se3.transform_points(se3.invert(prepared.world_from_sensor), points).numpy()
        boxes = self._clustering.boxes(local)
        return [FirstBox(str(n), "Object", source.name, box, "sensor") for n, box in enumerate(boxes, 1)]
