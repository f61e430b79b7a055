"""Hungarian matching and losses of the head that looks from above (arXiv 2203.17270, section 4.2; DETR3D).

Notation: L decoder layers, B batch, G groups of Q queries, K classes, n objects of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from perception.layers.distributed import mean_over_ranks
from perception.layers.precision import at_least_float32

from .coder import encode
from .head import HeadOutput

_MATCHED_DIMS = 8  # of the code: velocity does not count for the matching
_UNMATCHABLE = 100.0


@dataclass
class Target3D:
    """Objects of one sample.

    Attributes:
        labels: (n,) int64.
        boxes: (n, 9), see :mod:`~projects.bevformer_v2.coder`; in the frame of detection, augmented if it is.
    """

    labels: Tensor
    boxes: Tensor


@dataclass
class Matches:
    """Pairs of query and object of all layers, samples and groups.

    Attributes:
        layer, sample, query: (p,) int64; queries are counted over all groups.
        target: (p,) int64, number of the object in its sample.
    """

    layer: Tensor
    sample: Tensor
    query: Tensor
    target: Tensor


class BEVCriterion(nn.Module):
    """Matching and losses.

    Args:
        cls_weight: of classification, in cost and loss.
        bbox_weight: of boxes, in cost and loss.
        alpha, gamma: of the focal loss.
    """

    def __init__(
        self, cls_weight: float = 2.0, bbox_weight: float = 0.75, alpha: float = 0.25, gamma: float = 2.0
    ) -> None:
        super().__init__()
        self.cls_weight, self.bbox_weight = cls_weight, bbox_weight
        self.alpha, self.gamma = alpha, gamma

    def forward(self, output: HeadOutput, targets: Sequence[Target3D], code_weights: Tensor) -> dict[str, Tensor]:
        """Weighted losses; their sum is that of training.

        Args:
            output: predictions.
            targets: B samples.
            code_weights: (10,) of the numbers of a box's code.

        Returns:
            ``loss_cls`` and ``loss_bbox`` of the last layer, with ``d0.`` and so on in front for the others; means over
            groups.

        Raises:
            ValueError: another number of targets than of samples.
            FloatingPointError: see :meth:`match`.
        """
        if len(targets) != output.logits.shape[1]:
            raise ValueError(f"predictions for {output.logits.shape[1]} samples, but targets of {len(targets)}")
        logits, codes = at_least_float32(output.logits), at_least_float32(output.codes)
        wanted = [encode(target.boxes.to(codes.dtype)) for target in targets]
        matches = self.match(logits, codes, output.num_groups, targets)
        num_classes = logits.shape[-1]
        label = torch.full(logits.shape[:-1], num_classes, device=logits.device)
        code = torch.full_like(codes, torch.inf)
        for b, target in enumerate(targets):
            mine = matches.sample == b
            place = matches.layer[mine], matches.sample[mine], matches.query[mine]
            label[place] = target.labels[matches.target[mine]]
            code[place] = wanted[b][matches.target[mine]]
        # Every group matches as many.
        positives = mean_over_ranks(logits.new_tensor(float(len(matches.target)))) / (len(logits) * output.num_groups)
        normaliser = positives.clamp(min=1) * output.num_groups

        losses: dict[str, Tensor] = {}
        for layer in range(len(logits)):
            prefix = "" if layer == len(logits) - 1 else f"d{layer}."
            hits = F.one_hot(label[layer], num_classes + 1)[..., :-1].to(logits)
            focal = sigmoid_focal_loss(logits[layer], hits, self.alpha, self.gamma, reduction="sum")
            losses[f"{prefix}loss_cls"] = self.cls_weight * focal / normaliser
            # Rows without an object, and objects without a size, have no finite code.
            learns = code[layer].isfinite().all(-1)
            error = _smooth_l1(codes[layer][learns] - code[layer][learns]) * code_weights
            losses[f"{prefix}loss_bbox"] = self.bbox_weight * error.sum() / normaliser
        return losses

    @torch.no_grad()
    def match(self, logits: Tensor, codes: Tensor, num_groups: int, targets: Sequence[Target3D]) -> Matches:
        """Matches the queries of each layer, sample and group to its objects, one to one, by the least total cost.

        Args:
            logits: (L, B, G Q, K).
            codes: (L, B, G Q, 10).
            num_groups: G.
            targets: B samples.

        Raises:
            FloatingPointError: a prediction is NaN or infinite: training has diverged.
        """
        costs = [
            torch.stack([self.cost(logits[layer, b], codes[layer, b], target) for layer in range(len(logits))])
            for b, target in enumerate(targets)
        ]  # L, G Q, n
        finite = logits.isfinite().all() & codes.isfinite().all()
        # One transfer for all: each would otherwise wait for the device.
        flat = torch.cat([finite[None].to(codes.dtype), *(cost.flatten() for cost in costs)]).cpu()
        if not flat[0]:
            raise FloatingPointError(
                "predictions hold NaN or infinite values: training has diverged; lower the learning rate or check the "
                "boxes of the data set"
            )
        layers, samples, queries, found = [], [], [], []
        for b, part in enumerate(flat[1:].split([cost.numel() for cost in costs])):
            by_group = part.view(costs[b].shape).unflatten(1, (num_groups, -1)).numpy()
            for layer, group in torch.cartesian_prod(torch.arange(len(logits)), torch.arange(num_groups)).tolist():
                rows, columns = (torch.as_tensor(i) for i in linear_sum_assignment(by_group[layer, group]))
                queries.append(rows + group * by_group.shape[2])
                found.append(columns)
                layers.append(torch.full_like(rows, layer))
                samples.append(torch.full_like(rows, b))
        parts = (torch.cat(numbers).to(logits.device, torch.int64) for numbers in (layers, samples, queries, found))
        return Matches(*parts)

    def cost(self, logits: Tensor, codes: Tensor, target: Target3D) -> Tensor:
        """Costs (Q, n) of the pairs of one sample and layer: logits (Q, K), codes (Q, 10)."""
        prob = logits.sigmoid()[:, target.labels]
        positive = -self.alpha * (1 - prob) ** self.gamma * (prob + 1e-12).log()
        negative = -(1 - self.alpha) * prob**self.gamma * (1 - prob + 1e-12).log()
        wanted = encode(target.boxes.to(codes.dtype))
        error = _smooth_l1(codes[:, None, :_MATCHED_DIMS] - wanted[:, :_MATCHED_DIMS]).sum(-1)
        cost = self.cls_weight * (positive - negative) + self.bbox_weight * error
        # An object without a size has an infinite code; it is matched to some query and no box is learned from it.
        return cost.nan_to_num(_UNMATCHABLE, _UNMATCHABLE, -_UNMATCHABLE)


def _smooth_l1(error: Tensor) -> Tensor:
    size = error.abs()
    return torch.where(size < 1, 0.5 * size**2, size - 0.5)
