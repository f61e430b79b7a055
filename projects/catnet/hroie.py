"""HRoIE, hierarchical pooling: every region is cropped from every level, and the crops add up behind gates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from perception.ops.roi_align import roi_align

from .convolution import ConvNorm, init_uniform

DIRECTIONS = ("bottom_up", "top_down")


def make_gates(channels: int, num_levels: int) -> nn.ModuleList:
    """A gate for each level: from the running sum and the level's crop (2C) to C logits."""
    gates = nn.ModuleList(ConvNorm(2 * channels, channels, 1) for _ in range(num_levels))
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


def gated_sum(crops: Iterable[Tensor], gates: Iterable[ConvNorm]) -> Tensor:
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


def _logits(gate: ConvNorm, total: Tensor | None, crop: Tensor) -> Tensor:
    """The gate's convolution of the sum so far (None: 0) and the crop, without joining the two in memory."""
    channels = crop.shape[1]
    logits = F.conv2d(crop, gate.conv.weight[:, channels:], gate.conv.bias)
    if total is None:
        return logits
    return logits + F.conv2d(total, gate.conv.weight[:, :channels])


class HRoIE(nn.Module):
    """The extractor as a module of its own (arXiv 2111.11057, instance domain).

    Published: boxes bottom-up in 7 x 7 bins, masks top-down in 14 x 14.

    Args:
        out_channels: C of the maps.
        featmap_strides: of the maps in pixels of the image, from fine to coarse.
        output_size: rows and columns of bins.
        direction: ``"bottom_up"`` or ``"top_down"``.
    """

    def __init__(self, out_channels: int, featmap_strides: Sequence[int], output_size: int, direction: str):
        super().__init__()
        self.strides, self.output_size = tuple(featmap_strides), (output_size, output_size)
        self.order = visiting_order(len(self.strides), direction)
        self.atts = make_gates(out_channels, len(self.strides))

    def forward(self, feats: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Maps (B, C, H_i, W_i) and regions (R, 5) as (image index, x1, y1, x2, y2) -> (R, C, rows, columns)."""
        crops = (roi_align(feats[i], rois, self.output_size, 1 / self.strides[i]) for i in self.order)
        return gated_sum(crops, (self.atts[i] for i in self.order))
