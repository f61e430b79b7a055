"""Deformable RoI pooling (Deformable ConvNets, arXiv:1703.06211)."""

import torch
from torch import Tensor

from perception.ops._dtype import as_float, zeros_in_graph
from perception.ops._sampling import bilinear_taps, gather_weighted, roi_grids, sample_positions

__all__ = ["deform_roi_pool"]


def deform_roi_pool(
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    gamma: float = 0.1,
) -> Tensor:
    r"""RoIAlign whose bins are moved by learned offsets.

    Differentiable by features and offsets. As in mmcv, the slope by the offset of a sample that lies less than a pixel
    outside of the map, or on its last row or column, is not that of the border rule: the four pixels that the sample is
    read from are interpolated, and before the first row or column extrapolated, without it.

    Args:
        features: maps of shape :math:`(B, C, H, W)`.
        rois: (image index, x1, y1, x2, y2) in pixels of the image, of shape :math:`(R, 5)`.
        offset: (x, y) shifts of the bins in units of ``gamma`` times the size of the region, of shape
            :math:`(R, 2, \text{rows}, \text{columns})`; ``None`` for none.
        output_size: rows and columns of bins.
        spatial_scale: size of the map divided by the size of the image.
        sampling_ratio: samples per bin and axis; 0 for as many as the bin has pixels, rounded up.
        gamma: scale of the offsets.

    Returns:
        Tensor of shape :math:`(R, C, \text{rows}, \text{columns})`.
    """
    values, rois = as_float(features), rois.detach()
    height, width = values.shape[2:]
    rows, columns = output_size
    rois = rois.to(values.dtype)
    image = rois[:, 0].long()
    start = rois[:, 1:3] * spatial_scale - 0.5
    size = rois[:, 3:5] * spatial_scale - 0.5 - start
    bin_size = size / size.new_tensor([columns, rows])
    shift = values.new_zeros(len(rois), 2, rows, columns)
    if offset is not None:
        shift = gamma * size[:, :, None, None] * offset.to(values.dtype)

    pooled = zeros_in_graph(values, len(rois), rows, columns, values.shape[1]) + shift.flatten()[:0].sum()
    for block, down, across in roi_grids(bin_size[:, 1], bin_size[:, 0], sampling_ratio, (rows, columns)):
        if down * across == 0:
            continue
        y = sample_positions(start[block, 1], bin_size[block, 1], rows, down)[:, :, None, :, None]
        x = sample_positions(start[block, 0], bin_size[block, 0], columns, across)[:, None, :, None, :]
        y, x = torch.broadcast_tensors(
            y + shift[block, 1][..., None, None], x + shift[block, 0][..., None, None]
        )  # (R, rows, columns, down, across)
        index, weight = bilinear_taps(y.detach(), x.detach(), height, width)
        if shift.requires_grad:
            weight = weight + _slopes(y, x, index, weight, width)
        mean = gather_weighted(values, image[block], index.flatten(3), weight.flatten(3) / (down * across))
        pooled = pooled.index_put((block,), mean)
    return pooled.permute(0, 3, 1, 2).to(features.dtype).contiguous()


def _slopes(y: Tensor, x: Tensor, index: Tensor, weight: Tensor, width: int) -> Tensor:
    """Zeros (..., 4) with the derivative that mmcv gives the weights by the place (...) of a sample."""
    row, column = index // width, index % width
    y_low, y_high, x_low, x_high = row[..., 0], row[..., 2], column[..., 0], column[..., 1]
    above, below, left, right = y_high - y, y - y_low, x_high - x, x - x_low
    linear = torch.stack([above * left, above * right, below * left, below * right], -1)
    # All weights are zero, and so are the slopes, where a sample is too far outside.
    return (linear - linear.detach()) * (weight != 0).any(-1, keepdim=True)
