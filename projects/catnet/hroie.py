"""HRoIE, hierarchical pooling: every region is cropped from every level, and the crops add up behind gates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perception.ops.roi_align import roi_align

from .convolution import ConvNorm, init_uniform

DIRECTIONS = ("bottom_up", "top_down")


def make_gates(channels: int, num_levels: int, conv_block: Callable[..., nn.Module] = ConvNorm) -> nn.ModuleList:
    """A gate for each level: from the running sum and the level's crop (2C) to C logits.

    Args:
        conv_block: makes a convolution, called as ``ConvNorm`` is.
    """
    gates = nn.ModuleList(conv_block(2 * channels, channels, 1) for _ in range(num_levels))
    init_uniform(gates)
    return gates


def visiting_order(num_levels: int, direction: str) -> list[int]:
    """Levels from the finest to the coarsest (``"bottom_up"``) or the other way (``"top_down"``).

    Raises:
        ValueError: another direction.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, not {direction!r}")
    order = list(range(num_levels))
    return order if direction == "bottom_up" else order[::-1]


def gated_sum(crops: Iterable[Tensor], gates: Iterable[nn.Module]) -> Tensor:
    """Adds crops (R, C, h, w) one after another, each times the sigmoid of its gate on (sum so far, crop).

    Args:
        crops: of the levels, in the order in which they are added; at least one.
        gates: of the same levels, as :func:`make_gates` makes them.
    """
    total: Tensor | None = None
    for crop, gate in zip(crops, gates, strict=True):
        gated = crop * _logits(gate, total, crop).sigmoid()
        total = gated if total is None else total + gated
    if total is None:
        raise ValueError("a sum needs at least one level")
    return total


def _logits(gate: nn.Module, total: Tensor | None, crop: Tensor) -> Tensor:
    """The gate's convolution of the sum so far (None: 0) and the crop; a plain one without joining the two."""
    if type(gate.conv) is not nn.Conv2d:
        return gate(torch.cat([torch.zeros_like(crop) if total is None else total, crop], 1))
    channels = crop.shape[1]
    logits = F.conv2d(crop, gate.conv.weight[:, channels:], gate.conv.bias)
    if total is None:
        return logits
    return logits + F.conv2d(total, gate.conv.weight[:, :channels])


def rescaled(rois: Tensor, factor: float) -> Tensor:
    """Regions (R, 5) as (image index, x1, y1, x2, y2), enlarged about their centres."""
    centre, size = (rois[:, 1:3] + rois[:, 3:]) / 2, (rois[:, 3:] - rois[:, 1:3]) * factor
    return torch.cat([rois[:, :1], centre - size / 2, centre + size / 2], 1)


class HRoIE(nn.Module):
    """The extractor as a module of its own (arXiv 2111.11057, instance domain).

    Published: boxes bottom-up in 7 x 7 bins, masks top-down in 14 x 14.

    Args:
        out_channels: C of the maps.
        featmap_strides: of the maps in pixels of the image, from fine to coarse.
        output_size: rows and columns of bins; one number for both.
        direction: ``"bottom_up"`` or ``"top_down"``.
        sampling_ratio: samples per bin and axis; 0 for as many as the bin has cells of the map.
    """

    def __init__(
        self,
        out_channels: int,
        featmap_strides: Sequence[int],
        output_size: int | tuple[int, int],
        direction: str,
        sampling_ratio: int = 0,
    ):
        super().__init__()
        self.strides, self.sampling_ratio = tuple(featmap_strides), sampling_ratio
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        self.order = visiting_order(len(self.strides), direction)
        self.atts = make_gates(out_channels, len(self.strides))

    def forward(self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Maps (B, C, H_i, W_i) and regions (R, 5) as (image index, x1, y1, x2, y2) -> (R, C, rows, columns)."""
        rois = rois.to(torch.promote_types(rois.dtype, feats[0].dtype))
        if roi_scale_factor is not None:
            rois = rescaled(rois, roi_scale_factor)
        crops = (
            roi_align(feats[i], rois, self.output_size, 1 / self.strides[i], self.sampling_ratio) for i in self.order
        )
        return gated_sum(crops, (self.atts[i] for i in self.order))
