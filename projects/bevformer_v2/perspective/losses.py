"""Losses of the perspective head (FCOS's in the image, DD3D's disentangled ones in space, nuScenes' attributes)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from perception.layers.distributed import mean_over_ranks

from .boxes import COMPONENTS, BoxDecoding, CameraBoxes
from .head import PerspectiveOutput, flatten, locations
from .targets import SIZES_OF_INTEREST, Assignment, CameraTargets, assign, assigned_boxes, centerness

CANONICAL_SIZES = (
    (2.3524184, 0.5062202, 1.0413622),
    (0.61416006, 1.7016163, 1.3054738),
    (2.9139307, 10.725025, 3.2832346),
    (1.9751819, 4.641267, 1.74352),
    (2.772134, 6.565072, 3.2474296),
    (0.7800532, 2.138673, 1.4437162),
    (0.6667362, 0.7181772, 1.7616143),
    (0.40246472, 0.4027083, 1.0084083),
    (3.0059454, 12.8197, 4.1213827),
    (2.4986045, 6.9310856, 2.8382742),
)
"""Width, length, height in metres of nuScenes' classes, in the order of their labels."""


class PerspectiveCriterion(nn.Module):
    """Targets and losses.

    Args:
        strides: of the levels.
        decoding: how predictions become boxes, or the settings of a :class:`BoxDecoding`; default: nuScenes' classes.
        radius, sizes_of_interest: see :func:`~projects.bevformer_v2.perspective.targets.assign`.
        alpha, gamma: of the focal loss.
        box3d_weight: of each of the four disentangled losses.
        conf_weight: of the confidence of 3D boxes.
        conf_temperature: metres of mean corner error at which the wanted confidence has fallen to 1 / e.
        attr_weight, speed_weight: of attributes and speed.
        smooth_l1_beta: metres (and m/s of speeds) up to which errors count by their square.
        beta_bug: the released corner loss, which forgets to divide the square by beta and so jumps there. The published
            weights were trained with it.
    """

    def __init__(
        self,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        decoding: BoxDecoding | Mapping[str, Any] | None = None,
        radius: float = 1.5,
        sizes_of_interest: Sequence[tuple[float, float]] = SIZES_OF_INTEREST,
        alpha: float = 0.25,
        gamma: float = 2.0,
        box3d_weight: float = 2.0,
        conf_weight: float = 1.0,
        conf_temperature: float = 1.0,
        attr_weight: float = 0.2,
        speed_weight: float = 0.2,
        smooth_l1_beta: float = 0.05,
        beta_bug: bool = True,
    ) -> None:
        super().__init__()
        self.strides, self.radius, self.sizes_of_interest = tuple(strides), radius, tuple(sizes_of_interest)
        settings = dict(canonical_sizes=CANONICAL_SIZES) if decoding is None else decoding
        self.decoding = settings if isinstance(settings, BoxDecoding) else BoxDecoding(**settings)
        self.alpha, self.gamma = alpha, gamma
        self.box3d_weight, self.conf_weight, self.conf_temperature = box3d_weight, conf_weight, conf_temperature
        self.attr_weight, self.speed_weight = attr_weight, speed_weight
        self.beta = smooth_l1_beta
        self.corner_loss = released_smooth_l1 if beta_bug else smooth_l1

    def forward(self, output: PerspectiveOutput, targets: Sequence[CameraTargets]) -> dict[str, Tensor]:
        """Weighted losses of a batch of M images; computed at least in float32.

        Raises:
            ValueError: another number of targets than of images, or of levels than of strides.
        """
        images, levels = len(output.logits[0]), len(output.logits)
        if len(targets) != images:
            raise ValueError(f"predictions for {images} images, but targets of {len(targets)}")
        if levels != len(self.strides):
            raise ValueError(f"strides are given for {len(self.strides)} levels, but predictions for {levels}")
        with torch.autocast(output.logits[0].device.type, enabled=False):
            return self._losses(output, targets)

    def assign(self, output: PerspectiveOutput, targets: Sequence[CameraTargets]) -> Assignment:
        """Which place learns which object."""
        where = locations(output, self.strides)
        num_classes = output.logits[0].shape[1]
        return assign(where, targets, self.strides, num_classes, self.radius, self.sizes_of_interest)

    def _losses(self, output: PerspectiveOutput, targets: Sequence[CameraTargets]) -> dict[str, Tensor]:
        assignment = self.assign(output, targets)
        weights = centerness(assignment.box2d)
        # Before anything depends on whether there are positives, since all processes must take part.
        count, total = mean_over_ranks(torch.stack([weights.new_tensor(len(weights)), weights.sum()])).unbind()
        count, total = count.clamp(min=1), total.clamp(min=1e-6)

        logits = flatten(output.logits)
        hits = F.one_hot(assignment.labels, logits.shape[1] + 1)[:, :-1].to(logits)
        losses = dict(loss_cls=sigmoid_focal_loss(logits, hits, self.alpha, self.gamma, reduction="sum") / count)
        rows = assignment.positive
        box2d, central = flatten(output.box2d)[rows], flatten(output.centerness)[rows, 0]
        losses["loss_box2d_reg"] = (giou_loss(box2d, assignment.box2d) * weights).sum() / total
        losses["loss_centerness"] = (
            F.binary_cross_entropy_with_logits(central, weights.to(central), reduction="sum") / count
        )

        labels = assignment.labels[rows]
        wanted = assigned_boxes(assignment, targets)
        found = predicted_boxes(output, rows, labels, assignment.locations, wanted.inverse_intrinsics, self.decoding)
        for component, loss in self.disentangled(found, wanted).items():
            losses[f"loss_box3d_{component}"] = self.box3d_weight * (loss * weights).sum() / total
        conf = flatten(output.conf)[rows].gather(1, labels[:, None])[:, 0]
        conf_loss = F.binary_cross_entropy_with_logits(conf, self.wanted_confidence(found, wanted), reduction="none")
        losses["loss_conf3d"] = self.conf_weight * (conf_loss * weights).sum() / total

        attributes = torch.cat([target.attributes for target in targets])[assignment.target]
        speeds = torch.cat([target.speeds for target in targets])[assignment.target]
        losses["loss_attr"] = self.attr_weight * _attribute_loss(flatten(output.attr)[rows], attributes, weights)
        speed = flatten(output.speed)[rows, 0]
        losses["loss_speed"] = self.speed_weight * _speed_loss(speed, speeds, weights, self.beta)
        return losses

    def disentangled(self, found: CameraBoxes, wanted: CameraBoxes) -> dict[str, Tensor]:
        """Mean corner loss (n,) of the wanted boxes with one predicted component, by component."""
        corners = wanted.corners()
        losses = {}
        for component in COMPONENTS:
            error = wanted.substitute(component, found).corners() - corners
            losses[component] = self.corner_loss(error, self.beta).flatten(1).mean(1)
        return losses

    @torch.no_grad()
    def wanted_confidence(self, found: CameraBoxes, wanted: CameraBoxes) -> Tensor:
        """(n,) in (0, 1], 1 for a perfect box."""
        error = (found.corners() - wanted.corners()).abs().flatten(1).mean(1)
        return torch.exp(-error / self.conf_temperature)


def predicted_boxes(
    output: PerspectiveOutput,
    rows: Tensor,
    labels: Tensor,
    where: Tensor,
    inverse_intrinsics: Tensor,
    decoding: BoxDecoding,
) -> CameraBoxes:
    """Boxes of some places for given classes.

    Args:
        output: predictions.
        rows: (n,) numbers of places in the order of :func:`~projects.bevformer_v2.perspective.head.flatten`.
        labels: (n,) classes whose box is wanted.
        where: (n, 2) their locations.
        inverse_intrinsics: (n, 3, 3).
        decoding: how predictions become boxes.
    """

    def of_class(maps: list[Tensor], size: int) -> Tensor:
        values = flatten(maps)[rows].unflatten(1, (size, -1))  # n, component, class
        return values.gather(2, labels[:, None, None].expand(-1, size, 1))[..., 0]

    depth = of_class(output.depth, 1)[:, 0]
    parts = (of_class(output.quat, 4), of_class(output.ctr, 2), depth, of_class(output.size, 3))
    return decoding(*parts, labels, where, inverse_intrinsics)


def giou_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """1 - GIoU (n,) of boxes (n, 4) given as left, top, right, bottom of the same location; pixels.

    One is added to intersection and union in the IoU, so that it is never 0 / 0.
    """

    def area(sides: Tensor) -> Tensor:
        return (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])

    shared, hull = area(torch.minimum(found, wanted)), area(torch.maximum(found, wanted))
    union = area(found) + area(wanted) - shared
    return 1 - ((shared + 1) / (union + 1) - (hull - union) / hull)


def smooth_l1(error: Tensor, beta: float) -> Tensor:
    """Half the square over beta up to beta, linear beyond."""
    return F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none", beta=beta)


def released_smooth_l1(error: Tensor, beta: float) -> Tensor:
    """As released: the square is not divided by beta, so that the loss jumps there and small errors hardly count."""
    size = error.abs()
    return torch.where(size < beta, 0.5 * size**2, size - 0.5 * beta)


def _attribute_loss(logits: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """Mean cross entropy over objects with an attribute, each process's mean by its share of the centerness."""
    valid = wanted < logits.shape[1]
    total = weights[valid].sum()
    share = total / mean_over_ranks(total).clamp(min=1e-6)
    loss = F.cross_entropy(logits[valid], wanted[valid], reduction="sum")
    return share * loss / valid.sum().clamp(min=1)


def _speed_loss(found: Tensor, wanted: Tensor, weights: Tensor, beta: float) -> Tensor:
    """Centerness-weighted mean over objects whose speed is known."""
    valid = wanted.isfinite()
    total = mean_over_ranks(weights[valid].sum()).clamp(min=1e-6)
    return (smooth_l1(found[valid] - wanted[valid], beta) * weights[valid]).sum() / total
