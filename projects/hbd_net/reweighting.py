"""SSRW, shape-sensitive re-weighting: off-centre proposals and elongated bridges count more in the box regression."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _long_over_short(width: Tensor, height: Tensor) -> Tensor:
    return torch.maximum(width, height) / torch.minimum(width, height)


def _height_over_width(width: Tensor, height: Tensor) -> Tensor:
    return height / width


RATIOS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "long_short": _long_over_short,
    "h_over_w": _height_over_width,
}
"""How the aspect ratio of an object is taken.

``h_over_w`` is what was released. It depends on which side is called the width, and is meant for angles in (0, pi/2]
(:func:`perception.geometry.rotated_boxes.as_oc`); even there, objects with h < w / e get *negative* weights.
"""


def shape_sensitive_weights(
    proposals: Tensor, targets: Tensor, ratio: str = "long_short", scale: float = 0.3
) -> Tensor:
    """Weights (P,) of the regression of positive proposals.

    scale * (ln(Qw + 1) + 1) * (ln(Qh + 1) + 1) * (ln(aspect ratio) + 1), where Qw and Qh are the offsets of the
    centres along the object's sides over half of these sides.

    Args:
        proposals: (P, 5) as (cx, cy, w, h, angle).
        targets: (P, 5), the objects that they are matched with.
        ratio: a key of :data:`RATIOS`.
        scale: mu.

    Raises:
        ValueError: another ratio.
    """
    if ratio not in RATIOS:
        raise ValueError(f"ratio must be one of {', '.join(RATIOS)}, not {ratio!r}")
    dx, dy = (proposals[:, :2] - targets[:, :2]).unbind(-1)
    cos, sin = targets[:, 4].cos(), targets[:, 4].sin()
    width, height = targets[:, 2:4].clamp(min=torch.finfo(targets.dtype).eps).unbind(-1)
    along = 2 * (cos * dx + sin * dy).abs() / width
    across = 2 * (cos * dy - sin * dx).abs() / height
    return scale * (along.log1p() + 1) * (across.log1p() + 1) * (RATIOS[ratio](width, height).log() + 1)
