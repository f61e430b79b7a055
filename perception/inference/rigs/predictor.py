"""Finds the objects in frames of rigs, one frame of a scene after the other, whatever model does so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement
from torch import Tensor

from perception.datasets.driving.rigs import motion_between
from perception.geometry import boxes3d, se3
from perception.inference.reading import Refused
from perception.inference.scan import Source

from .frames import RigDetails
from .model import RigDetector
from .reader import RigFrame, RigReader


@dataclass(frozen=True)
class Found:
    """Objects of a frame, on the CPU, the best first.

    Attributes:
        boxes: (n, 9) in the frame's LiDAR's frame, see :mod:`perception.geometry.boxes3d`; vx, vy over the ground.
        scores: (n,).
        labels: (n,).
        offsets: of the frames that were looked at, ascending.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    offsets: tuple[int, ...]


@dataclass(frozen=True)
class _Prepared:
    source: Source
    batch: dict[str, Any]


@dataclass(frozen=True)
class _Seen:
    """A frame that was looked at, with its own matrices."""

    source: Source
    shown: Any
    sample: BaseDataElement


class RigPredictor:
    """A :class:`perception.inference.predicting.SequencePredictor`. Without poses, each frame is looked at by itself.

    Args:
        model: on its device, in evaluation mode.
        pipeline: the test pipeline without its loader of images.
        reader: for frames that an interrupted run has seen.
    """

    def __init__(self, model: RigDetector, pipeline: Callable[[dict], dict | None], reader: RigReader) -> None:
        self._model, self._pipeline, self._reader = model, pipeline, reader
        self._reach = -min(model.frames)
        self._kept: dict[int, _Seen] = {}

    @property
    def looks_back(self) -> bool:
        """Whether the model takes earlier frames."""
        return self._reach > 0

    def begin(self, sources: Sequence[Source]) -> None:
        self._kept = {}

    def prepare(self, source: Source, sample: RigFrame) -> _Prepared:
        packed = self._pipeline(_item(source.details, sample))
        if packed is None:
            raise ValueError("the test pipeline rejects it")
        return _Prepared(source, pseudo_collate([packed]))

    @torch.no_grad()
    def step(self, prepared: _Prepared) -> Found:
        now = self._look(prepared)
        details = now.source.details
        there = self._kept if details.global_from_ego is not None else {}
        seen = {0: (now.shown, now.sample)}
        for offset in self._model.frames:
            if offset < 0 and details.place + offset in there:
                before = there[details.place + offset]
                seen[offset] = (before.shown, _from_now(before, details))
        found = self._model.detect(seen)
        self._keep(now)
        boxes, scores = (found[name].detach().cpu() for name in ("bboxes_3d", "scores"))
        return Found(boxes, scores, found.labels.cpu(), tuple(sorted(seen)))

    def state(self) -> dict[str, Any]:
        return {"kept": [seen.source.name for seen in self._kept.values()]}

    @torch.no_grad()
    def restore(self, sources: Sequence[Source], state: dict[str, Any]) -> None:
        # Their images are read once more, which gives the same as to keep what they showed, without its size.
        self.begin(sources)
        by_name = {source.name: source for source in sources}
        for name in state["kept"]:
            sample = self._reader.read(by_name[name], alone=True)
            if not isinstance(sample, Refused):
                self._keep(self._look(self.prepare(by_name[name], sample)))

    def _look(self, prepared: _Prepared) -> _Seen:
        return _Seen(prepared.source, self._model.look(prepared.batch), prepared.batch["data_samples"][0])

    def _keep(self, now: _Seen) -> None:
        place = now.source.details.place
        if self._reach:
            kept = {k: seen for k, seen in self._kept.items() if k > place - self._reach}
            self._kept = {**kept, place: now}


def _item(details: RigDetails, sample: RigFrame) -> dict[str, Any]:
    """What test pipelines start from, as :class:`perception.datasets.driving.rigs.NuScenesRigs` gives it."""
    views = []
    for camera, image in zip(details.cameras, sample.images, strict=True):
        pose = torch.tensor(camera.lidar_from_camera, dtype=torch.float64)
        views.append(
            dict(
                name=camera.name,
                path=str(camera.path),
                width=camera.width,
                height=camera.height,
                intrinsics=np.array(camera.intrinsics),
                camera_from_lidar=se3.invert(pose).numpy(),
                image=image,
            )
        )
    return dict(
        token=details.token,
        scene=details.scene,
        timestamp=details.timestamp,
        offsets=(0,),
        views=[views],
        ego_from_lidar=np.array(details.ego_from_lidar),
        global_from_ego=np.eye(4) if details.global_from_ego is None else np.array(details.global_from_ego),
    )


def _from_now(before: _Seen, now: RigDetails) -> BaseDataElement:
    """An earlier frame's sample whose matrices lead from the LiDAR's frame of now."""
    ego_from_lidar, then, current = (
        torch.tensor(pose, dtype=torch.float64)
        for pose in (now.ego_from_lidar, before.source.details.global_from_ego, now.global_from_ego)
    )
    lidar_from_now = se3.invert(motion_between(then, current, ego_from_lidar)).numpy()
    sample = before.sample.clone()
    sample.set_metainfo({"lidar2img": np.asarray(before.sample.lidar2img) @ lidar_from_now})
    return sample


def in_vehicle_frame(found: Found, details: RigDetails) -> Tensor:
    """Boxes (n, 9) with the centre in the middle, x forward and y left of the vehicle; float64."""
    pose = torch.tensor(details.ego_from_lidar, dtype=torch.float64)
    return boxes3d.transform(found.boxes.double(), pose)
