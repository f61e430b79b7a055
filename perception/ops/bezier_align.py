"""BezierAlign of ABCNet."""

import torch
from torch import Tensor

from perception.ops._dtype import as_float, zeros_in_graph
from perception.ops._sampling import bilinear_taps, gather_weighted, roi_grids, sample_positions

__all__ = ["bezier_align"]


def bezier_align(
    features: Tensor,
    beziers: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Tensor:
    r"""RoIAlign along a band between two cubic Bezier curves (ABCNet, arXiv:2002.10200).

    Bin (i, j) is centred at the fraction j / columns along both curves and i / rows of the way from the first to the
    second, and is as large as the curves' end points are apart, divided by the number of bins.

    Args:
        features: of shape :math:`(B, C, H, W)`.
        beziers: (image index, four control points of the upper curve, four of the lower one in opposite direction) in
            pixels of the image, of shape :math:`(R, 17)`.
        output_size: rows and columns of bins.
        spatial_scale: size of the map divided by the size of the image.
        sampling_ratio: samples per bin and axis; 0 for as many as the bin has pixels, rounded up.
        aligned: whether pixel centres lie at half-integer coordinates. The older rule puts them at integers and makes
            bands at least one pixel of the map wide and high.

    Returns:
        Tensor of shape :math:`(R, C, \text{rows}, \text{columns})`.
    """
    values = as_float(features)
    height, width = values.shape[2:]
    rows, columns = output_size
    beziers = beziers.detach().to(values.dtype)
    image = beziers[:, 0].long()
    points = beziers[:, 1:].reshape(-1, 2, 4, 2) * spatial_scale
    upper, lower = points[:, 0], points[:, 1].flip(1)

    u = torch.arange(columns, device=beziers.device, dtype=values.dtype)[:, None] / columns
    v = torch.arange(rows, device=beziers.device, dtype=values.dtype)[:, None, None] / rows
    centre = _curve(lower, u)[:, None] * v + _curve(upper, u)[:, None] * (1 - v) - (0.5 if aligned else 0.0)
    extent = torch.maximum((upper[:, 0] - upper[:, 3]).abs(), (lower[:, 0] - lower[:, 3]).abs())
    if not aligned:
        extent = extent.clamp(min=1)
    bin_size = extent / extent.new_tensor([columns, rows])

    pooled = zeros_in_graph(values, len(beziers), rows, columns, values.shape[1])
    for block, down, across in roi_grids(bin_size[:, 1], bin_size[:, 0], sampling_ratio, (rows, columns)):
        if down * across == 0:
            continue
        step_y = sample_positions(-0.5 * bin_size[block, 1], bin_size[block, 1], 1, down)[:, :, None, :, None]
        step_x = sample_positions(-0.5 * bin_size[block, 0], bin_size[block, 0], 1, across)[:, :, None, None, :]
        x, y = centre[block][..., None, None, :].unbind(-1)  # r rows columns 1 1
        y, x = torch.broadcast_tensors(y + step_y, x + step_x)
        index, weight = bilinear_taps(y, x, height, width)
        mean = gather_weighted(values, image[block], index.flatten(3), weight.flatten(3) / (down * across))
        pooled = pooled.index_put((block,), mean)
    return pooled.permute(0, 3, 1, 2).to(features.dtype).contiguous()


def _curve(control: Tensor, u: Tensor) -> Tensor:
    """Points (R, U, 2) of cubic Bezier curves with control points (R, 4, 2) at parameters (U, 1)."""
    p0, p1, p2, p3 = control[:, None].unbind(2)
    return (1 - u) ** 3 * p0 + 3 * u * (1 - u) ** 2 * p1 + 3 * u**2 * (1 - u) * p2 + u**3 * p3
