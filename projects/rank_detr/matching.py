"""Hungarian matching of Rank-DETR: a weighted cost first, the high-order cost from a given iteration on.

Source: arXiv 2310.08854, section 3.5. Boxes are cx, cy, w, h relative to the un-padded image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torchvision.ops import box_convert

from perception.layers.precision import at_least_float32

# Added to denominators in normalised units, where it is felt: a 0.003 x 0.003 box has a GIoU of 0.90 with itself.
IOU_EPS = 1e-6


class Target(TypedDict):
    """Objects of one image: labels (n,) int64, boxes (n, 4) cx, cy, w, h relative to the un-padded image."""

    labels: Tensor
    boxes: Tensor


def iou_and_giou(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of boxes that broadcast against each other.

    Args:
        boxes1: (..., 4) cx, cy, w, h.
        boxes2: (..., 4) cx, cy, w, h; ``boxes1[:, None], boxes2[None]`` gives all pairs.

    Returns:
        Two tensors of the broadcast shape without the last axis.
    """
    boxes1, boxes2 = box_convert(boxes1, "cxcywh", "xyxy"), box_convert(boxes2, "cxcywh", "xyxy")
    inter = _area(torch.maximum(boxes1[..., :2], boxes2[..., :2]), torch.minimum(boxes1[..., 2:], boxes2[..., 2:]))
    hull = _area(torch.minimum(boxes1[..., :2], boxes2[..., :2]), torch.maximum(boxes1[..., 2:], boxes2[..., 2:]))
    union = _area(boxes1[..., :2], boxes1[..., 2:]) + _area(boxes2[..., :2], boxes2[..., 2:]) - inter
    iou = inter / (union + IOU_EPS)
    return iou, iou - (hull - union) / (hull + IOU_EPS)


def _area(top_left: Tensor, bottom_right: Tensor) -> Tensor:
    return (bottom_right - top_left).clamp(min=0).prod(-1)


class RankDetrMatcher(nn.Module):
    """Matches predictions to targets, one to one, by the least total cost.

    Before ``change_iter``: ``class_weight * focal + bbox_weight * L1 - giou_weight * GIoU``. From ``change_iter`` on
    the high-order cost ``-p * IoU ** iou_order_alpha``, which wants good score and good box together.

    Args:
        change_iter: first iteration (0-based) of the high-order cost; None never changes.
        iou_order_alpha: exponent of the IoU.
        class_weight: weight of the focal classification cost.
        bbox_weight: weight of the L1 cost.
        giou_weight: weight of the GIoU cost.
        alpha: focal alpha.
        gamma: focal gamma.
        softmax: classes exclude each other: p is a softmax, and the weighted cost counts ``-p`` instead of focal.

    Attributes:
        iteration: the training iteration, set by :class:`~projects.rank_detr.hooks.MatcherIterationHook`. -1, the
            value outside training, uses the weighted cost.
    """

    def __init__(
        self,
        change_iter: int | None = 67_500,
        iou_order_alpha: float = 4.0,
        class_weight: float = 2.0,
        bbox_weight: float = 5.0,
        giou_weight: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        softmax: bool = False,
    ) -> None:
        super().__init__()
        self.change_iter, self.iou_order_alpha = change_iter, iou_order_alpha
        self.class_weight, self.bbox_weight, self.giou_weight = class_weight, bbox_weight, giou_weight
        self.alpha, self.gamma = alpha, gamma
        self.softmax = softmax
        self.iteration = -1

    @property
    def high_order(self) -> bool:
        """Whether the current iteration uses the high-order cost."""
        return self.change_iter is not None and self.iteration >= self.change_iter

    def cost(self, logits: Tensor, boxes: Tensor, target: Target) -> Tensor:
        """Cost of every (query, target) pair of one image.

        Args:
            logits: (..., Q, K).
            boxes: (..., Q, 4).
            target: n objects.

        Returns:
            (..., Q, n), float32 for half-precision predictions.
        """
        logits, boxes = at_least_float32(logits), at_least_float32(boxes)[..., :, None, :]
        prob = (logits.softmax(-1) if self.softmax else logits.sigmoid())[..., target["labels"]]
        wanted = target["boxes"].to(boxes.dtype)
        iou, giou = iou_and_giou(boxes, wanted)
        if self.high_order:
            return -prob * iou**self.iou_order_alpha
        l1 = (boxes - wanted).abs().sum(-1)
        return self.class_weight * self._class_cost(prob) + self.bbox_weight * l1 - self.giou_weight * giou

    def _class_cost(self, prob: Tensor) -> Tensor:
        if self.softmax:
            return -prob
        positive = self.alpha * (1 - prob) ** self.gamma * -(prob + 1e-8).log()
        negative = (1 - self.alpha) * prob**self.gamma * -(1 - prob + 1e-8).log()
        return positive - negative

    @torch.no_grad()
    def forward(self, logits: Tensor, boxes: Tensor, targets: Sequence[Target]) -> list[list[tuple[Tensor, Tensor]]]:
        """Matches several outputs (decoder layers) against the same targets.

        Args:
            logits: (L, B, Q, K).
            boxes: (L, B, Q, 4).
            targets: B images.

        Returns:
            L lists of B pairs (query indices, target indices), int64 on the device of ``logits``.

        Raises:
            FloatingPointError: a cost is NaN or infinite: training has diverged.
        """
        costs = [self.cost(logits[:, b], boxes[:, b], target) for b, target in enumerate(targets)]
        # One transfer for all layers and images: each would otherwise wait for the device.
        flat = torch.cat([cost.flatten() for cost in costs]).cpu()
        if not flat.isfinite().all():
            raise FloatingPointError(
                f"the matching cost at iteration {self.iteration} holds NaN or infinite values: training has diverged; "
                "lower the learning rate or check the boxes of the data set"
            )
        parts = [part.view(c.shape).numpy() for part, c in zip(flat.split([c.numel() for c in costs]), costs)]
        return [
            [
                tuple(torch.as_tensor(index, dtype=torch.int64, device=logits.device) for index in pair)
                for pair in (linear_sum_assignment(part[layer]) for part in parts)
            ]
            for layer in range(len(logits))
        ]
