"""Losses of Rank-DETR: GIoU-aware classification, L1 and GIoU over both branches (arXiv 2310.08854, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from perception.layers.distributed import mean_over_ranks
from perception.layers.precision import at_least_float32

from .matching import RankDetrMatcher, Target, iou_and_giou
from .transformer import RankDetrOutput

Matches = list[tuple[Tensor, Tensor]]


def giou_aware_classification_loss(
    logits: Tensor, one_hot: Tensor, quality: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Focal-like loss whose positive target is the quality of the matched box (GCL).

    Args:
        logits: (..., K) z, with p = sigmoid(z).
        one_hot: (..., K) y, 1 at the class of a matched query.
        quality: (..., 1) or (..., K) t = (GIoU + 1) / 2 of a matched query's box, without gradient.
        alpha: weight of positives; negatives weigh ``1 - alpha``. Negative: all weigh 1.
        gamma: exponent of the modulating factors, which are part of the gradient.

    Returns:
        The sum over all elements of
        ``y * alpha * |t - p|^gamma * BCE(z, t) + (1 - y) * (1 - alpha) * p^gamma * BCE(z, 0)``.
    """
    prob = logits.sigmoid()
    target = one_hot * quality
    positive, negative = (alpha, 1 - alpha) if alpha >= 0 else (1, 1)
    weight = one_hot * positive * (target - prob).abs() ** gamma + (1 - one_hot) * negative * prob**gamma
    return (weight * F.binary_cross_entropy_with_logits(logits, target, reduction="none")).sum()


@dataclass
class MatchedPairs:
    """The n pairs of query and target that the matcher found in a batch.

    Attributes:
        image: (n,) int64.
        query: (n,) int64, the query within its image.
        labels: (n,) int64, class of the target.
        boxes: (n, 4) predicted, cx, cy, w, h.
        wanted: (n, 4) box of the target.
        giou: (n,) of the two.
    """

    image: Tensor
    query: Tensor
    labels: Tensor
    boxes: Tensor
    wanted: Tensor
    giou: Tensor

    @classmethod
    def gather(cls, boxes: Tensor, targets: Sequence[Target], matches: Matches) -> MatchedPairs:
        """Looks up what each pair refers to.

        Args:
            boxes: (B, Q, 4) predictions.
            targets: B images.
            matches: for each image the indices of queries and of targets.
        """
        image = torch.cat([torch.full_like(query, b) for b, (query, _) in enumerate(matches)])
        query = torch.cat([query for query, _ in matches])
        labels = torch.cat([t["labels"][index] for t, (_, index) in zip(targets, matches)])
        # Gathered through each image's own indices: the released code's running offset goes wrong once an image has
        # more targets than queries.
        matched = boxes[image, query]
        wanted = torch.cat([t["boxes"][index] for t, (_, index) in zip(targets, matches)]).to(matched.dtype)
        return cls(image, query, labels, matched, wanted, iou_and_giou(matched, wanted)[1])

    def one_hot(self, logits: Tensor) -> Tensor:
        """Zeros of the shape of ``logits`` (B, Q, K), 1 at the class of each matched query."""
        encoded = torch.zeros_like(logits)
        encoded[self.image, self.query, self.labels] = 1.0
        return encoded


def box_losses(pairs: MatchedPairs) -> dict[str, Tensor]:
    """Sums over the pairs of the L1 distance and of 1 - GIoU."""
    return dict(loss_bbox=(pairs.boxes - pairs.wanted).abs().sum(), loss_giou=(1 - pairs.giou).sum())


class RankDetrCriterion(nn.Module):
    """Matching and losses of the one-to-one branch, the one-to-many branch and the encoder.

    Args:
        matcher: assigns queries to targets, for every output separately.
        giou_aware_class_loss: GCL for decoder outputs in training mode; otherwise (and for the encoder, and in
            evaluation mode) focal loss.
        class_weight: weight of the classification terms.
        bbox_weight: weight of the L1 terms.
        giou_weight: weight of the GIoU terms.
        k_one2many: how often each target is repeated in the one-to-many branch; 0 leaves its losses out.
        lambda_one2many: weight of the one-to-many branch.
        alpha: alpha of focal loss and GCL; negative for none.
        gamma: gamma of focal loss and GCL.
        aux_loss: decoder layers before the last have losses of their own.
    """

    def __init__(
        self,
        matcher: RankDetrMatcher,
        giou_aware_class_loss: bool = True,
        class_weight: float = 2.0,
        bbox_weight: float = 5.0,
        giou_weight: float = 2.0,
        k_one2many: int = 6,
        lambda_one2many: float = 1.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        aux_loss: bool = True,
    ) -> None:
        super().__init__()
        self.matcher = matcher
        self.giou_aware_class_loss = giou_aware_class_loss
        self.weights = dict(loss_class=class_weight, loss_bbox=bbox_weight, loss_giou=giou_weight)
        self.k_one2many, self.lambda_one2many = k_one2many, lambda_one2many
        self.alpha, self.gamma = alpha, gamma
        self.aux_loss = aux_loss

    def forward(self, output: RankDetrOutput, targets: Sequence[Target]) -> dict[str, Tensor]:
        """All weighted terms; their sum is the training loss.

        Args:
            output: predictions over one or two groups of queries.
            targets: B images.

        Returns:
            ``loss_{class,bbox,giou}`` of the last layer, with ``_0``.. for earlier layers, ``_enc`` for the encoder and
            ``_one2many`` appended for the one-to-many branch: 39 scalars for 6 layers and both branches.
        """
        one2one = output.group_sizes[0]
        terms = self.decoder_losses(output.logits[:, :, :one2one], output.boxes[:, :, :one2one], targets)
        terms.update(self.encoder_losses(output.enc_logits, output.enc_boxes, targets))
        losses = {name: value * self._weight(name) for name, value in terms.items()}
        if len(output.group_sizes) > 1 and self.k_one2many > 0:
            k = self.k_one2many
            repeated = [Target(labels=t["labels"].repeat(k), boxes=t["boxes"].repeat(k, 1)) for t in targets]
            terms = self.decoder_losses(output.logits[:, :, one2one:], output.boxes[:, :, one2one:], repeated)
            for name, value in terms.items():
                losses[f"{name}_one2many"] = value * self._weight(name) * self.lambda_one2many
        return losses

    def decoder_losses(self, logits: Tensor, boxes: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Unweighted terms of every decoder layer, or of the last alone without ``aux_loss``.

        Args:
            logits: (L, B, Q, K).
            boxes: (L, B, Q, 4).
            targets: B images.
        """
        if not self.aux_loss:
            logits, boxes = logits[-1:], boxes[-1:]
        logits, boxes = at_least_float32(logits), at_least_float32(boxes)
        matches, num_boxes = self.matcher(logits, boxes, targets), self._num_boxes(targets)
        class_loss = self._giou_aware_loss if self.giou_aware_class_loss and self.training else self._focal_loss
        losses: dict[str, Tensor] = {}
        last = len(logits) - 1
        for layer in (last, *range(last)):
            suffix = "" if layer == last else f"_{layer}"
            pairs = MatchedPairs.gather(boxes[layer], targets, matches[layer])
            terms = dict(loss_class=class_loss(logits[layer], pairs), **box_losses(pairs))
            losses.update({f"{name}{suffix}": value / num_boxes for name, value in terms.items()})
        return losses

    def encoder_losses(self, logits: Tensor, boxes: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Unweighted terms of the encoder, whose channel 0 is trained as objectness.

        Args:
            logits: (B, S, K).
            boxes: (B, S, 4).
            targets: B images.
        """
        logits, boxes = at_least_float32(logits), at_least_float32(boxes)
        class_agnostic = [Target(labels=torch.zeros_like(t["labels"]), boxes=t["boxes"]) for t in targets]
        matches = self.matcher(logits[None], boxes[None], class_agnostic)[0]
        pairs = MatchedPairs.gather(boxes, class_agnostic, matches)
        terms = dict(loss_class=self._focal_loss(logits, pairs), **box_losses(pairs))
        num_boxes = self._num_boxes(targets)
        return {f"{name}_enc": value / num_boxes for name, value in terms.items()}

    def _focal_loss(self, logits: Tensor, pairs: MatchedPairs) -> Tensor:
        """Sum over (B, Q, K)."""
        return sigmoid_focal_loss(logits, pairs.one_hot(logits), self.alpha, self.gamma, reduction="sum")

    def _giou_aware_loss(self, logits: Tensor, pairs: MatchedPairs) -> Tensor:
        """Sum over (B, Q, K)."""
        quality = logits.new_zeros(*logits.shape[:2], 1)
        quality[pairs.image, pairs.query, 0] = (pairs.giou.detach() + 1) / 2
        return giou_aware_classification_loss(logits, pairs.one_hot(logits), quality, self.alpha, self.gamma)

    @staticmethod
    def _num_boxes(targets: Sequence[Target]) -> Tensor:
        """Mean number of targets per process, at least 1."""
        count = torch.tensor(float(sum(len(t["labels"]) for t in targets)), device=targets[0]["labels"].device)
        return mean_over_ranks(count).clamp(min=1)

    def _weight(self, name: str) -> float:
        return next(weight for prefix, weight in self.weights.items() if name.startswith(prefix))
