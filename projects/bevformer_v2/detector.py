"""BEVFormer v2 as an MMEngine model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

from perception.engine.errors import UserError
from perception.geometry import boxes3d

from .coder import Detections
from .head import BEVFormerHead, HeadOutput
from .losses import BEVCriterion, Target3D
from .perspective.head import NuscenesDD3D
from .perspective.inference import detect, to_lidar
from .perspective.losses import PerspectiveCriterion
from .perspective.targets import CameraTargets
from .points import Rig
from .proposals import Proposals, choose_proposals

for _part in (BEVFormerHead, BEVCriterion, NuscenesDD3D, PerspectiveCriterion):
    MODELS.register_module(module=_part)

Samples = Sequence[BaseDataElement]


@dataclass(frozen=True)
class Seen:
    """What the images of one frame show.

    Attributes:
        maps: V maps (1, N, C, H_v, W_v).
        image_shape: height and width of the images with their padding.
    """

    maps: list[Tensor]
    image_shape: tuple[int, int]


@MODELS.register_module()
class BEVFormerV2(BaseModel):
    """BEVFormer v2 (arXiv 2211.10439).

    Args:
        img_backbone: config of a backbone.
        img_neck: config of a neck that returns a map for each level.
        pts_bbox_head: config of :class:`~projects.bevformer_v2.head.BEVFormerHead`, which takes the first levels.
        criterion: config of :class:`~projects.bevformer_v2.losses.BEVCriterion`.
        fcos3d_bbox_head: config of :class:`~projects.bevformer_v2.perspective.head.NuscenesDD3D`, which takes all
            levels; None trains without perspective supervision. It is idle in evaluation, but for the two-stage
            variant.
        perspective_criterion: config of :class:`~projects.bevformer_v2.perspective.losses.PerspectiveCriterion`.
        perspective_weight: of its losses.
        test_cfg: ``max_boxes`` (300) of a sample and ``center_range`` of them.
        data_preprocessor: config of :class:`~projects.bevformer_v2.preprocessor.RigPreprocessor`.
        init_cfg: MMEngine initialisation.

    Raises:
        ValueError: a two-stage head without a perspective head, or heads and canonical sizes of different numbers of
            classes.
    """

    def __init__(
        self,
        img_backbone: dict,
        img_neck: dict,
        pts_bbox_head: dict,
        criterion: dict | None = None,
        fcos3d_bbox_head: dict | None = None,
        perspective_criterion: dict | None = None,
        perspective_weight: float = 1.0,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.img_backbone = MODELS.build(img_backbone)
        self.img_neck = MODELS.build(img_neck)
        self.pts_bbox_head = MODELS.build(pts_bbox_head)
        self.criterion = MODELS.build(criterion or dict(type=BEVCriterion))
        self.fcos3d_bbox_head, self.perspective_criterion = None, None
        if fcos3d_bbox_head is not None:
            self.fcos3d_bbox_head = MODELS.build(fcos3d_bbox_head)
            strides = dict(strides=self.fcos3d_bbox_head.strides)
            config = perspective_criterion or dict(type=PerspectiveCriterion)
            self.perspective_criterion = MODELS.build(config, default_args=strides)
            self._require_same_classes()
        elif self.pts_bbox_head.proposal_queries is not None:
            raise ValueError("the two-stage variant (num_proposals) needs fcos3d_bbox_head, which makes the proposals")
        self.perspective_weight = perspective_weight
        self.test_cfg = dict(test_cfg or {})

    def _require_same_classes(self) -> None:
        counts = {
            "pts_bbox_head": self.pts_bbox_head.num_classes,
            "fcos3d_bbox_head": self.fcos3d_bbox_head.num_classes,
            "the canonical sizes of perspective_criterion.decoding": len(
                self.perspective_criterion.decoding.canonical_sizes
            ),
        }
        if len(set(counts.values())) > 1:
            raise ValueError(
                "numbers of classes differ: " + ", ".join(f"{name} {count}" for name, count in counts.items())
            )

    @property
    def frames(self) -> tuple[int, ...]:
        """Offsets of the frames that are fused, ascending."""
        return self.pts_bbox_head.transformer.frames

    def forward(
        self, inputs: dict[str, list[Tensor]], data_samples: Samples, mode: str = "tensor"
    ) -> dict[str, Tensor] | HeadOutput | Samples:
        """A step.

        Args:
            inputs: ``img``, B of (frames, cameras, 3, H, W), normalised and padded to one size.
            data_samples: B samples as the driving data sets pack them.
            mode: "loss" (weighted terms by name), "predict" (samples with ``pred_instances``) or "tensor" (what the
                head gives).
        """
        if mode == "loss":
            return self.loss(inputs["img"], data_samples)
        if mode == "predict":
            return self.predict(inputs["img"], data_samples)
        return self._run(inputs["img"], data_samples)[0]

    def loss(self, images: list[Tensor], samples: Samples) -> dict[str, Tensor]:
        """Weighted losses of both heads; those of the perspective head end in ``_mono``."""
        output, feats = self._run(images, samples)
        targets = [_target(sample, images[0].device) for sample in samples]
        losses = self.criterion(output, targets, self.pts_bbox_head.code_weights)
        if self.fcos3d_bbox_head is not None and self.perspective_criterion is not None:
            chosen, camera_targets = _camera_targets(samples, images[0].device)
            perspective = self.fcos3d_bbox_head([feat.flatten(0, 1)[chosen] for feat in feats])
            for name, loss in self.perspective_criterion(perspective, camera_targets).items():
                losses[f"{name}_mono"] = self.perspective_weight * loss
        return losses

    @torch.no_grad()
    def predict(self, images: list[Tensor], samples: Samples) -> Samples:
        """Adds ``pred_instances`` to every sample, best first.

        They have ``bboxes_3d`` (n, 9), the suite's x, y, z, l, w, h, yaw, vx, vy in the current LiDAR's frame with z of
        the whole box's centre, ``scores`` and ``labels``.
        """
        output, _ = self._run(images, samples)
        for sample, found in zip(samples, self.pts_bbox_head.detect(output, **self.test_cfg)):
            sample.set_data(dict(pred_instances=_instances(found)))
        return samples

    @property
    def num_cams(self) -> int:
        """How many cameras it has learned vectors for."""
        return len(self.pts_bbox_head.transformer.cams_embeds)

    @torch.no_grad()
    def look(self, batch: dict) -> Seen:
        """What one frame shows, for :meth:`detect`; see :mod:`perception.inference.rigs.model`."""
        data = self.data_preprocessor(batch)
        images, samples = data["inputs"]["img"], data["data_samples"]
        return Seen(self._extract(images, samples, [0]), tuple(images[0].shape[-2:]))

    @torch.no_grad()
    def detect(self, seen: Mapping[int, tuple[Seen, BaseDataElement]]) -> InstanceData:
        """Objects of the frame with the offset 0, as `predict` finds them; every frame's images were looked at once."""
        device = seen[0][0].maps[0].device
        views: list[Tensor | None] = [
            self._encode_seen(*seen[offset]) if offset != 0 and offset in seen else None for offset in self.frames
        ]
        present = torch.tensor([[offset in seen for offset in self.frames]], device=device)
        now, sample = seen[0]
        two_stage = self.pts_bbox_head.proposal_queries is not None
        output = self.pts_bbox_head(
            self._bev_levels(now.maps),
            _rig_seen(now, sample),
            views,
            present,
            proposals=self._propose(now.maps, [sample]) if two_stage else None,
        )
        return _instances(self.pts_bbox_head.detect(output, **self.test_cfg)[0])

    def _encode_seen(self, shown: Seen, sample: BaseDataElement) -> Tensor:
        return self.pts_bbox_head.encode(self._bev_levels(shown.maps), _rig_seen(shown, sample))

    def _run(self, images: list[Tensor], samples: Samples) -> tuple[HeadOutput, list[Tensor]]:
        """The head's output, and the maps (B, N, C, H_v, W_v) of the current frame."""
        # First, so that no statistics are updated before earlier frames are looked at.
        history, present = self._history(images, samples)
        current = [0] * len(samples)
        feats = self._extract(images, samples, current)
        proposals = None
        if self.pts_bbox_head.proposal_queries is not None:
            proposals = self._propose(feats, samples)
        output = self.pts_bbox_head(
            self._bev_levels(feats),
            _rig(images, samples, current),
            history,
            present,
            _bev_warp(samples, images[0].device),
            proposals=proposals,
        )
        return output, feats

    def _extract(self, images: list[Tensor], samples: Samples, offsets: Sequence[int]) -> list[Tensor]:
        """Maps (B, N, C, H_v, W_v) of one frame of each sample, mirrored back where images were mirrored."""
        chosen = torch.stack([x[_place(s, offset)] for x, s, offset in zip(images, samples, offsets)])
        feats = self.img_neck(self.img_backbone(chosen.flatten(0, 1)))
        flips = torch.tensor([bool(s.metainfo.get("flip", False)) for s in samples], device=chosen.device)
        maps = [feat.unflatten(0, chosen.shape[:2]) for feat in feats]
        if flips.any():
            maps = [torch.where(flips[:, None, None, None, None], feat.flip(-1), feat) for feat in maps]
        return maps

    def _bev_levels(self, feats: list[Tensor]) -> list[Tensor]:
        return feats[: len(self.pts_bbox_head.transformer.level_embeds)]

    @torch.no_grad()
    def _history(self, images: list[Tensor], samples: Samples) -> tuple[list[Tensor | None], Tensor | None]:
        """Views of the other frames in the axes of the current one, as in evaluation, and which sample has which."""
        if len(self.frames) == 1:
            return [], None
        device = images[0].device
        present = torch.tensor([[offset in s.offsets for offset in self.frames] for s in samples], device=device)
        views: list[Tensor | None] = []
        with evaluating(self):
            for t, offset in enumerate(self.frames):
                mine = [b for b, sample in enumerate(samples) if offset in sample.offsets]
                if offset == 0 or not mine:
                    views.append(None)
                    continue
                some_images, some = [images[b] for b in mine], [samples[b] for b in mine]
                feats = self._bev_levels(self._extract(some_images, some, [offset] * len(mine)))
                rig = _rig(some_images, some, [offset] * len(mine))
                view = self.pts_bbox_head.encode(feats, rig, _bev_warp(some, device))
                whole = view.new_zeros(len(samples), *view.shape[1:])
                views.append(whole.index_copy(0, present[:, t].nonzero()[:, 0], view))
        return views, present

    @torch.no_grad()
    def _propose(self, feats: list[Tensor], samples: Samples) -> Proposals:
        """Centres of the perspective head's boxes, in the augmented detection frame."""
        head, criterion = self.fcos3d_bbox_head, self.perspective_criterion
        if any(sample.metainfo.get("grid_mask") is not None for sample in samples):
            raise UserError(
                "a grid mask hides objects from the proposals: leave it out of a two-stage model's pipeline"
            )
        device = feats[0].device
        intrinsics = torch.stack([_matrix(sample.cam2img, device) for sample in samples])  # B, N, 3, 3
        with evaluating(head):
            output = head([feat.flatten(0, 1) for feat in feats])
        found = detect(output, head.strides, intrinsics.flatten(0, 1), criterion.decoding)
        boxes, scores = [], []
        for b, sample in enumerate(samples):
            matrices = _matrix(sample.lidar2img, device)[_place(sample, 0)]
            cameras = found[b * len(matrices) : (b + 1) * len(matrices)]
            poses = _lidar_from_camera(intrinsics[b], matrices)
            boxes.append(torch.cat([to_lidar(camera.boxes, pose) for camera, pose in zip(cameras, poses)]))
            scores.append(torch.cat([camera.scores3d for camera in cameras]))
        chosen = choose_proposals(boxes, scores, self.pts_bbox_head.proposal_queries.num_proposals)
        warp = _bev_warp(samples, device)
        if warp is None:
            return chosen
        return Proposals(chosen.centers @ torch.linalg.inv(warp).mT)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A module in evaluation mode for a while; then every part of it is in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _place(sample: BaseDataElement, offset: int) -> int:
    """Number of a frame among those that a sample has."""
    return list(sample.offsets).index(offset)


def _matrix(values: object, device: torch.device) -> Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=device)


def _rig(images: list[Tensor], samples: Samples, offsets: Sequence[int]) -> Rig:
    matrices = [np.asarray(s.lidar2img)[_place(s, offset)] for s, offset in zip(samples, offsets)]
    device = images[0].device
    height, width = images[0].shape[-2:]
    return Rig(
        torch.as_tensor(np.stack(matrices), device=device),
        (height, width),
        torch.tensor([s.pad_shape for s in samples], device=device),
    )


def _rig_seen(shown: Seen, sample: BaseDataElement) -> Rig:
    return Rig(torch.as_tensor(np.asarray(sample.lidar2img), device=shown.maps[0].device), shown.image_shape)


def _bev_warp(samples: Samples, device: torch.device) -> Tensor | None:
    """(B, 3, 3) inverses of what moved the ground truth; None where nothing did."""
    still = torch.eye(3, device=device)
    inverses = [sample.metainfo.get("bda_inverse") for sample in samples]
    warp = torch.stack([still if inverse is None else _matrix(inverse, device) for inverse in inverses])
    return None if (warp == still).all() else warp


def _lidar_from_camera(intrinsics: Tensor, lidar2img: Tensor) -> Tensor:
    """Poses (N, 4, 4) from intrinsics (N, 3, 3) and matrices (N, 4, 4) of the same images."""
    camera_from_lidar = lidar2img.double().clone()
    camera_from_lidar[:, :3] = torch.linalg.solve(intrinsics.double(), camera_from_lidar[:, :3])
    return torch.linalg.inv(camera_from_lidar)


def _target(sample: BaseDataElement, device: torch.device) -> Target3D:
    instances = sample.gt_instances
    boxes = boxes3d.legacy_sizes_and_yaw(torch.as_tensor(instances.bboxes_3d, device=device).float())
    # Velocities that are not known count as none, as in the released data.
    velocity = boxes[:, 7:9].nan_to_num(0.0)
    return Target3D(torch.as_tensor(instances.labels, device=device), torch.cat([boxes[:, :7], velocity], 1))


def _camera_targets(samples: Samples, device: torch.device) -> tuple[Tensor, list[CameraTargets]]:
    """Numbers of the images, counted over the batch, that show an object, and what they show.

    An image whose objects all were in the rows that are cut off is among them and shows none, as in the released code.
    Without any object in the whole batch the first image stands for all, so that every weight has its gradient.
    """
    every: list[CameraTargets] = []
    annotated: list[bool] = []
    for sample in samples:
        annotated += sample.metainfo.get("annotated_cameras") or [False] * len(sample.camera_instances)
        for objects, intrinsics in zip(sample.camera_instances, _matrix(sample.cam2img, device)):
            boxes = [torch.as_tensor(objects[name]).float() for name in ("rotations", "translations", "sizes")]
            parts = (
                torch.as_tensor(objects.labels),
                torch.as_tensor(objects.boxes_2d).float(),
                torch.cat(boxes, 1),
                torch.as_tensor(objects.attributes),
                torch.as_tensor(objects.speeds).float(),
            )
            every.append(CameraTargets(*(part.to(device) for part in parts), intrinsics))
    chosen = [number for number, targets in enumerate(every) if annotated[number] or len(targets.labels)] or [0]
    return torch.tensor(chosen, device=device), [every[number] for number in chosen]


def _instances(found: Detections) -> InstanceData:
    boxes = boxes3d.legacy_sizes_and_yaw(found.boxes)
    boxes[:, 6] = boxes3d.wrap_angle(boxes[:, 6])
    return InstanceData(bboxes_3d=boxes, scores=found.scores, labels=found.labels)
