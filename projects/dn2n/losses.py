"""DN2N's losses: colours, agreement of two perturbed source sets, agreement with a neighbouring view.

That there is a self-view term on two source sets and a neighbouring-view term with depth and a mask is known from
public reviews of the paper; their form is this project's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from projects.dn2n.projection import project
from projects.dn2n.rendering import CoarseAndFine, Rendered


def masked_mse(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of colours (N, 3) where the mask (N,) is 1: sum(m |x - y|^2) / (3 sum(m) + 1e-6)."""
    mask = mask.to(x.dtype)
    return (mask[:, None] * (x - y).square()).sum() / (3 * mask.sum() + 1e-6)


def colour_loss(rendered: CoarseAndFine, target: Tensor) -> Tensor:
    """Error of the coarse and the fine colours against the clean target (N, 3), each over its own mask."""
    parts = [part for part in rendered if part is not None]
    return torch.stack([masked_mse(part.rgb, target, part.mask) for part in parts]).sum()


def self_view_loss(a: Rendered, b: Rendered) -> Tensor:
    """Squared difference of the same rays rendered from two source sets; both sides get gradients."""
    return masked_mse(a.rgb, b.rgb, a.mask & b.mask)


def self_depth_loss(a: Rendered, b: Rendered) -> Tensor:
    """Mean difference of the two depths over the first one, where both masks hold; 0 where nowhere."""
    mask = (a.mask & b.mask).to(a.depth.dtype)
    return (mask * (a.depth - b.depth).abs() / a.depth.detach().clamp(min=1e-6)).sum() / mask.sum().clamp(min=1)


class Warped(NamedTuple):
    """Points of rays as a neighbouring camera sees them."""

    pixels: Tensor  # (N, 2)
    depth: Tensor  # (N,)
    inside: Tensor  # (N,) bool: in front of it and within its image


def to_neighbour(origins: Tensor, directions: Tensor, depth: Tensor, camera: Tensor) -> Warped:
    """Project the points at depths (N,) of rays (N, 3) to a camera (34,); no gradient reaches the depths."""
    points = origins + directions * depth.detach()[:, None]
    seen = project(points, camera[None])
    return Warped(seen.pixels[0], seen.depth[0], seen.mask[0])


def overlap_mask(warped: Warped, neighbour_depth: Tensor, tolerance: float = 0.05) -> Tensor:
    """Where (N,) both views see the same point: the neighbour's own depth there is the point's, up to a share."""
    found = neighbour_depth.detach()
    difference = (warped.depth - found).abs() / found.clamp(min=1e-6)
    return warped.inside & (difference < tolerance)


def neighbour_loss(
    colours: Tensor, neighbour_colours: Tensor, warped: Warped, neighbour_depth: Tensor, tolerance: float = 0.05
) -> Tensor:
    """Squared difference of colours (N, 3) and those that the neighbour shows at the same points; 0 where it sees none.

    Args:
        colours: of the target's rays.
        neighbour_colours: of the neighbour's rays through ``warped.pixels``.
        warped: see :func:`to_neighbour`.
        neighbour_depth: (N,) expected depths of the neighbour's rays.
        tolerance: largest difference of depths, as a share.
    """
    return masked_mse(colours, neighbour_colours, overlap_mask(warped, neighbour_depth, tolerance))
