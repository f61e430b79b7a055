"""SiamCUT, MoCUT and what they stand on, as MMEngine models: a training step, and a step from one cloud to the next."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor

from perception.datasets.tracklets.crops import SearchArea, inside_box, resample, size_channels
from perception.datasets.tracklets.samples import motion_inputs
from perception.datasets.tracklets.sequences import TrackletClouds
from perception.geometry import boxes3d
from perception.inference.clouds.model import Step, Target

from .backbone import AdaFormer
from .losses import (
    MotionTargets,
    SiameseTargets,
    m2track_losses,
    p2b_losses,
    unified_motion_losses,
    unified_siamese_losses,
)
from .motion import MotionNetwork, SegAdaFormer, SegPointNet
from .pointnet2 import PointNet2SSG
from .siamese import SiameseNetwork

MODELS.register_module(module=AdaFormer)
MODELS.register_module(module=PointNet2SSG)
MODELS.register_module(module=SegPointNet)

_SEED = 1
"""Of the points that are drawn from every crop while tracking, as in the released code: tracking is deterministic."""


class Tracker3D(BaseModel):
    """Follows any number of objects through clouds, all in one batch; sizes stay as they were given.

    Args:
        area: settings of :class:`~perception.datasets.tracklets.crops.SearchArea`.
        coast: where the last box held less than 3 points and the search area less than 25, or that less than 3, repeat
            the last motion in the plane. Otherwise the network is asked whatever there is, as published trackers do.
    """

    def __init__(self, area: dict | None = None, coast: bool = False):
        super().__init__()
        self.area, self.coast = SearchArea(**(area or {})), coast

    def forward(
        self, inputs: Any, targets: dict[str, Tensor] | None = None, mode: str = "tensor"
    ) -> dict[str, Tensor] | list[dict[str, Any]] | Any:
        """A step of MMEngine.

        Args:
            inputs: of a training sample, by name; or, for prediction, a list of
                :class:`~perception.datasets.tracklets.sequences.TrackletClouds`.
            targets: of a training sample, by name.
            mode: "loss" (weighted terms by name), "predict" (``category``, ``name``, ``predicted`` and ``truth`` of
                each tracklet), or "tensor" (what the network gives).
        """
        if mode == "loss":
            return self.loss(inputs, targets)
        if mode == "predict":
            return self.track(inputs)
        return self.network(**inputs)

    @abstractmethod
    def loss(self, inputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weighted terms of a batch."""

    @abstractmethod
    def _offsets(self, targets: Sequence[Target], searches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Where targets went, (T, 4) in the frames of their boxes, and scores (T,)."""

    def begin(self, points: Tensor, box: Tensor) -> Target:
        """A target whose box (7,) in a cloud (N, 3) is given."""
        box = box.double().cpu()
        return Target(box, inside_box(points, box), _surroundings(points, box, self.area))

    @torch.no_grad()
    def step(self, targets: Sequence[Target], points: Sequence[Tensor]) -> list[Step]:
        """Finds targets in their next clouds, and moves them there.

        Args:
            targets: T of them, which change.
            points: for each its cloud (N, 3), all on the CPU.
        """
        if not targets:
            return []
        crops = [self.area.crop(cloud, target.box) for target, cloud in zip(targets, points, strict=True)]
        offsets, scores = self._offsets(targets, crops)
        steps = []
        for target, cloud, crop, offset, score in zip(targets, points, crops, offsets, scores, strict=True):
            if not self.coast or not self._scarce(target, crop):
                box, status = boxes3d.moved_by(target.box, offset), "ok" if len(crop) > 2 else "lost"
            elif target.age:
                box, status = target.box.clone(), "coasting"
                box[:2] += target.motion
            else:
                box, status = target.box, "lost"
            target.motion = box[:2] - target.box[:2]
            target.box, target.age = box, target.age + 1
            target.previous = _surroundings(cloud, box, self.area)
            steps.append(Step(box, float(score) if status == "ok" else float("nan"), len(crop), status))
        return steps

    @staticmethod
    def _scarce(target: Target, crop: Tensor) -> bool:
        return len(crop) <= 2 or (len(crop) < 25 and len(inside_box(target.previous, target.box, 1.0)) < 3)

    def track(self, tracklets: Sequence[TrackletClouds]) -> list[dict[str, Any]]:
        """Follows tracklets from their first boxes on, side by side."""
        targets = [self.begin(clouds.points(0), clouds.tracklet.boxes[0]) for clouds in tracklets]
        found = [[target.box] for target in targets]
        for index in range(1, max(map(len, tracklets))):
            going = [number for number, clouds in enumerate(tracklets) if index < len(clouds)]
            clouds = [tracklets[number].points(index) for number in going]
            for number, step in zip(going, self.step([targets[number] for number in going], clouds), strict=True):
                found[number].append(step.box)
        return [
            dict(
                category=clouds.tracklet.category,
                name=clouds.tracklet.name,
                predicted=torch.stack(boxes),
                truth=clouds.tracklet.boxes,
            )
            for clouds, boxes in zip(tracklets, found, strict=True)
        ]

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return next(self.parameters()).device


def _surroundings(points: Tensor, box: Tensor, area: SearchArea) -> Tensor:
    """The points of a cloud that later steps may need: a cloud is not kept whole for each target."""
    reach = float(box[3:6].norm()) * area.scale + 2 * area.of(box)
    return points[((points - box[:3].to(points.dtype)).abs() < reach).all(1)]


@MODELS.register_module()
class SiamTracker3D(Tracker3D):
    """SiamCUT (arXiv 2401.11204) or P2B (arXiv 2005.13888), by their backbone and losses.

    Args:
        backbone: config of :class:`.backbone.AdaFormer` or :class:`.pointnet2.PointNet2SSG`.
        network: further settings of :class:`.siamese.SiameseNetwork`.
        losses: ``"unified"``, or P2B's: ``"p2b"``, ``"p2b_released"`` (see :func:`.losses.p2b_losses`).
        template_points, search_points: see :class:`~perception.datasets.tracklets.samples.SiameseSamples`.
        size_channels, degrees: likewise; as the model is trained.
        use_z: let boxes move up and down; P2B's configurations do not.
        proposals: ``"best"``, as published: the target is where the proposal of highest score is; or ``"mean"``: where
            all proposals are on the mean, weighted by their scores, which are noisy after short trainings.
        area, coast: see :class:`Tracker3D`.
    """

    def __init__(
        self,
        backbone: dict,
        network: dict | None = None,
        losses: Literal["unified", "p2b", "p2b_released"] = "unified",
        template_points: int = 512,
        search_points: int = 1024,
        size_channels: bool = True,
        degrees: bool = False,
        use_z: bool = True,
        proposals: Literal["best", "mean"] = "best",
        area: dict | None = None,
        coast: bool = False,
    ):
        super().__init__(area, coast)
        if losses not in ("unified", "p2b", "p2b_released"):
            raise ValueError(f'losses are "unified", "p2b" or "p2b_released", not {losses!r}')
        if proposals not in ("best", "mean"):
            raise ValueError(f'proposals are "best" or "mean", not {proposals!r}')
        self.network = SiameseNetwork(MODELS.build(backbone), **(network or {}))
        self.losses, self.use_z, self.proposals = losses, use_z, proposals
        self.template_points, self.search_points = template_points, search_points
        self.size_channels, self.degrees = size_channels, degrees

    def loss(self, inputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Tracker3D`."""
        output, wanted = self.network(**inputs), SiameseTargets(**targets)
        if self.losses == "unified":
            return unified_siamese_losses(output, wanted)
        reduction = "released" if self.losses == "p2b_released" else "masked"
        return p2b_losses(output, wanted, objectness_reduction=reduction)

    def _offsets(self, targets: Sequence[Target], searches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        templates, areas = [], []
        for target, search in zip(targets, searches, strict=True):
            template = torch.cat([target.first, inside_box(target.previous, target.box)])
            template, _ = resample(template, self.template_points, np.random.default_rng(_SEED))
            search, _ = resample(search, self.search_points, np.random.default_rng(_SEED))
            if self.size_channels:
                template = torch.cat([template, size_channels(target.box, len(template))], 1)
                search = torch.cat([search, size_channels(target.box, len(search))], 1)
            templates.append(template)
            areas.append(search)
        output = self.network(torch.stack(templates).to(self.device), torch.stack(areas).to(self.device))
        offsets, logits = output.best() if self.proposals == "best" else output.mean()
        offsets = offsets.double().cpu()
        if self.degrees:
            offsets[:, 3].deg2rad_()
        if not self.use_z:
            offsets[:, 2] = 0
        return offsets, logits.sigmoid().cpu()


@MODELS.register_module()
class MotionTracker3D(Tracker3D):
    """MoCUT (arXiv 2401.11204) or M2-Track (arXiv 2203.01730), by their segmentation and losses.

    Args:
        segmenter: config of :class:`.motion.SegPointNet` (M2-Track) or :class:`AdaFormerSegmenter` (MoCUT).
        losses: ``"unified"`` or ``"m2track"``.
        points: of each frame.
        area, coast: see :class:`Tracker3D`.
        network: further settings of :class:`.motion.MotionNetwork`.
    """

    def __init__(
        self,
        segmenter: dict,
        losses: Literal["unified", "m2track"] = "unified",
        points: int = 1024,
        area: dict | None = None,
        coast: bool = False,
        network: dict | None = None,
    ):
        super().__init__(area, coast)
        if losses not in ("unified", "m2track"):
            raise ValueError(f'losses are "unified" or "m2track", not {losses!r}')
        self.network = MotionNetwork(MODELS.build(segmenter), **(network or {}))
        self.losses, self.num_points = losses, points

    def loss(self, inputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Tracker3D`."""
        output, wanted = self.network(**inputs), MotionTargets(**targets)
        return unified_motion_losses(output, wanted) if self.losses == "unified" else m2track_losses(output, wanted)

    def _offsets(self, targets: Sequence[Target], searches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        inputs = []
        for target, search in zip(targets, searches, strict=True):
            before = self.area.crop(target.previous, target.box)
            before, _ = resample(before, self.num_points, np.random.default_rng(_SEED))
            after, _ = resample(search, self.num_points, np.random.default_rng(_SEED))
            own = boxes3d.relative_to(target.box, target.box).float()
            inputs.append(motion_inputs(before, after, own, certain=target.age == 0))
        batch = {name: torch.stack([one[name] for one in inputs]).to(self.device) for name in inputs[0]}
        boxes = self.network(**batch).last_boxes.double().cpu()
        return boxes, boxes.new_full((len(boxes),), float("nan"))


@MODELS.register_module()
class AdaFormerSegmenter(SegAdaFormer):
    """:class:`.motion.SegAdaFormer` whose backbone is given as a config."""

    def __init__(self, backbone: dict, **options: Any):
        super().__init__(MODELS.build(backbone), **options)
