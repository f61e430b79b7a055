"""Losses of P2B and M2-Track, and the unified ones, which measure in units of the target's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .motion import MotionOutput
from .siamese import SiameseOutput

_SMALLEST = 0.3
"""Metres. Thinner sizes count as this much: targets in units of a very thin object would explode."""


@dataclass
class SiameseTargets:
    """What a Siamese tracker should give, in the frame of the search area's reference box.

    Attributes:
        box: (B, 4) centre (m) and yaw, in the unit that the tracker predicts.
        on_target: (B, N) float, 1 where a search point lies on the target.
        size: (B, 3) width, length and height of the target (m).
    """

    box: Tensor
    on_target: Tensor
    size: Tensor


@dataclass
class MotionTargets:
    """What a motion tracker should give, in the frame of the previous reference box.

    Attributes:
        box: (B, 4) of the current frame, metres and radians.
        previous_box: (B, 4) of the previous frame.
        motion: (B, 4) the current box in the frame of the previous true box.
        on_target: (B, N) int64, 1 where a point lies on the target.
        box_cloud: (B, N, 9) true distances, metres; only looked at where the tracker predicts them.
        size: (B, 3) width, length and height of the target (m).
        moving: (B,) bool, whether the target moves; by default by the length of ``motion``.
    """

    box: Tensor
    previous_box: Tensor
    motion: Tensor
    on_target: Tensor
    box_cloud: Tensor
    size: Tensor
    moving: Tensor | None = None


def extents(size: Tensor) -> Tensor:
    """Length, width, height (B, 3) of sizes w, l, h, none below 0.3 m: the units of x, y and z in a box's frame."""
    return size[:, [1, 0, 2]].clamp(min=_SMALLEST)


def footprint_scale(size: Tensor) -> Tensor:
    """Geometric mean (B) of length and width, metres: 2.5 for a car."""
    return (size[:, 0] * size[:, 1]).sqrt()


# ------------------------------------------------------------------ Siamese


def p2b_losses(
    output: SiameseOutput,
    targets: SiameseTargets,
    *,
    objectness_reduction: Literal["masked", "released"] = "released",
) -> dict[str, Tensor]:
    """Weighted losses of P2B (arXiv 2005.13888, section 3.4): targetness, votes, objectness, boxes.

    Args:
        output: of the tracker.
        targets: yaw in the unit that the tracker predicts; P2B's configurations have degrees.
        objectness_reduction: ``"released"`` averages over all proposals before masking, as the released code does,
            whereby those between count as far ones; ``"masked"`` averages over those that are near (0.3 m) or far
            (0.6 m) from the centre.
    """
    distance = _distance(output.centres, targets.box)
    positive, negative = (distance < 0.3).to(distance), distance > 0.6
    usable = torch.maximum(positive, negative.to(distance))
    if objectness_reduction == "released":
        mean = F.binary_cross_entropy_with_logits(
            output.boxes[..., 4], positive, pos_weight=_twice(output.boxes), reduction="mean"
        )
        objectness = mean * usable.sum() / (usable.sum() + 1e-6)
    else:
        objectness = _objectness(output, positive, usable)
    error = F.smooth_l1_loss(
        output.boxes[..., :4], targets.box[:, None].expand_as(output.boxes[..., :4]), reduction="none"
    )
    seg, vote = _points(output, targets, torch.ones_like(targets.size), beta=1.0)
    return {
        "loss_objectness": 1.5 * objectness,
        "loss_box": 0.2 * (error.mean(-1) * positive).sum() / (positive.sum() + 1e-6),
        "loss_vote": vote,
        "loss_seg": 0.2 * seg,
    }


def unified_siamese_losses(output: SiameseOutput, targets: SiameseTargets) -> dict[str, Tensor]:
    """Weighted losses of SiamCUT: errors in units of the target's length, width and height; yaw in radians.

    A proposal is good within 0.12 times the footprint's scale (0.3 m for a car) and bad beyond 0.24; the two nearest
    are always good, so that small objects have as many as large ones. The paper states the aim; the numbers are our
    definition.
    """
    distance, scale = _distance(output.centres, targets.box), footprint_scale(targets.size)[:, None]
    near = distance < 0.12 * scale
    nearest = distance.topk(min(2, distance.shape[1]), dim=1, largest=False).indices
    positive = near.scatter(1, nearest, True).to(distance)
    usable = torch.maximum(positive, (distance > 0.24 * scale).to(distance))

    unit = extents(targets.size)
    units = torch.cat([unit, torch.ones_like(unit[:, :1])], 1)[:, None]
    predicted, wanted = output.boxes[..., :4] / units, (targets.box[:, None] / units).expand_as(output.boxes[..., :4])
    error = F.smooth_l1_loss(predicted, wanted, beta=0.1, reduction="none").mean(-1)
    seg, vote = _points(output, targets, unit, beta=0.1)
    return {
        "loss_objectness": 1.5 * _objectness(output, positive, usable),
        "loss_box": (error * positive).sum() / (positive.sum() + 1e-6),
        "loss_vote": vote,
        "loss_seg": 0.2 * seg,
    }


def _distance(centres: Tensor, box: Tensor) -> Tensor:
    return ((centres - box[:, None, :3]).square().sum(-1) + 1e-6).sqrt()


def _twice(like: Tensor) -> Tensor:
    return like.new_full((), 2.0)


def _objectness(output: SiameseOutput, positive: Tensor, usable: Tensor) -> Tensor:
    each = F.binary_cross_entropy_with_logits(
        output.boxes[..., 4], positive, pos_weight=_twice(output.boxes), reduction="none"
    )
    return (each * usable).sum() / (usable.sum() + 1e-6)


def _points(output: SiameseOutput, targets: SiameseTargets, unit: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Targetness of the kept search points, and votes of those on the target."""
    on_target = targets.on_target.gather(1, output.seeds)
    seg = F.binary_cross_entropy_with_logits(output.targetness, on_target)
    votes = output.votes / unit[:, None]
    centre = (targets.box[:, None, :3] / unit[:, None]).expand_as(votes)
    error = F.smooth_l1_loss(votes, centre, beta=beta, reduction="none").mean(-1)
    return seg, (error * on_target).sum() / (on_target.sum() + 1e-6)


# ------------------------------------------------------------------ motion


def m2track_losses(output: MotionOutput, targets: MotionTargets) -> dict[str, Tensor]:
    """Weighted losses of M2-Track (arXiv 2203.01730, section 3.5), of what the tracker gives.

    A target moves if its centre did by 0.15 m.
    """
    return _motion_losses(output, targets, torch.ones_like(targets.size), beta=1.0, threshold=0.15)


def unified_motion_losses(output: MotionOutput, targets: MotionTargets) -> dict[str, Tensor]:
    """Weighted losses of MoCUT: centres in units of the target's length, width and height. It moves if its centre did
    by 0.06 times the footprint's scale (0.15 m for a car). The numbers are our definition."""
    threshold = 0.06 * footprint_scale(targets.size)
    return _motion_losses(output, targets, extents(targets.size), beta=0.1, threshold=threshold)


def _motion_losses(
    output: MotionOutput, targets: MotionTargets, unit: Tensor, *, beta: float, threshold: float | Tensor
) -> dict[str, Tensor]:
    moved = targets.motion[:, :3].norm(dim=-1) > threshold if targets.moving is None else targets.moving
    everything = torch.ones_like(output.motion[:, 0])
    moving = moved.to(everything)
    classes = output.segmentation.new_tensor([0.5, 2.0])
    losses = {"loss_seg": 0.1 * F.cross_entropy(output.segmentation, targets.on_target, weight=classes)}
    if output.box_cloud is not None:
        losses["loss_box_cloud"] = F.smooth_l1_loss(output.box_cloud, targets.box_cloud)
    if output.state is not None:
        losses["loss_state"] = 0.1 * F.cross_entropy(output.state, moving.long())
    for name, boxes, wanted in (
        ("motion", output.motion, targets.motion),
        ("first", output.first_boxes, targets.box),
        ("previous", output.previous_boxes, targets.previous_box),
        ("box", output.boxes, targets.box),
    ):
        if boxes is None:
            continue
        centre = F.smooth_l1_loss(boxes[:, :3] / unit, wanted[:, :3] / unit, beta=beta, reduction="none").mean(-1)
        angle = F.smooth_l1_loss(boxes[:, 3].sin(), wanted[:, 3].sin(), reduction="none")
        # Where nothing tells targets at rest, their motions count as those of all others do.
        masked = name == "motion" and output.state is not None
        counted, count = (moving, moving.sum() + 1e-6) if masked else (everything, len(boxes))
        losses[f"loss_{name}_centre"] = 2 * (centre * counted).sum() / count
        losses[f"loss_{name}_angle"] = 10 * (angle * counted).sum() / count
    return losses
