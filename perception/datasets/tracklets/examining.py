"""A look at tracklets before anything slow starts: how many there are, and whether boxes hold points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from mmengine.registry import DATASETS

from perception.datasets.checks.examined import Examined
from perception.datasets.checks.report import Section, some
from perception.geometry import boxes3d

from .tracklet import TrackletSet

_SAMPLE = 40
"""Clouds that are read: a cloud takes some milliseconds, and wrong boxes are wrong everywhere."""


class ExaminedTracklets(Examined):
    """A data set whose settings have ``tracklets``, the config of a :class:`.tracklet.TrackletSet`."""

    @classmethod
    def examine(cls, settings: Mapping[str, Any], section: Section, limit: int) -> None:
        """See :class:`~perception.datasets.checks.examined.Examined`."""
        tracklets: TrackletSet = DATASETS.build(settings["tracklets"])
        frames = Counter()
        for tracklet in tracklets.tracklets:
            frames[tracklet.category] += len(tracklet)
        section.facts.append(f"{len(tracklets.tracklets)} tracklets, {sum(frames.values())} frames")
        section.facts.append("categories: " + ", ".join(f"{name} {count}" for name, count in frames.items()))
        _look_for_points(tracklets, section, min(limit, _SAMPLE))


def _look_for_points(tracklets: TrackletSet, section: Section, limit: int) -> None:
    """Boxes of some frames against their clouds."""
    places = [(tracklet, index) for tracklet in tracklets.tracklets for index in range(len(tracklet))]
    sample = places[:: max(1, -(-len(places) // limit))]
    empty = []
    for tracklet, index in sample:
        points = tracklets.points(tracklet, index).to(tracklet.boxes.dtype)
        if not boxes3d.points_inside(points, tracklet.boxes[index : index + 1]).any():
            empty.append(f"{tracklet.name} in frame {tracklet.frames[index]}")
    if not empty:
        return
    say = section.findings.error if len(empty) > len(sample) / 2 else section.findings.warn
    say(
        f"{len(empty)} of {len(sample)} boxes that were looked at contain no points: {some(empty)}",
        "are boxes and clouds in the same frame, and is a box's place its bottom or its centre, as the format has it?",
    )
