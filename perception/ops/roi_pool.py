"""RoI max pooling of Fast R-CNN."""

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.ops._dtype import as_float, zeros_in_graph

__all__ = ["roi_pool"]


def roi_pool(
    features: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    r"""Maximum over the pixels of each bin of each region (Fast R-CNN, arXiv:1504.08083).

    As in mmcv, a region ends at (x2 + 1, y2 + 1) and its corners are not rounded; a bin covers every pixel that it
    touches, so that bins overlap. (``torchvision.ops.roi_pool`` rounds the corners first.)

    Args:
        features: maps of shape :math:`(B, C, H, W)`.
        rois: (image index, x1, y1, x2, y2) in pixels of the image, of shape :math:`(R, 5)`.
        output_size: rows and columns of bins.
        spatial_scale: size of the map divided by the size of the image.

    Returns:
        The maxima, of shape :math:`(R, C, \text{rows}, \text{columns})`, zero in bins outside the map and in regions of
        negative size, and the flat pixel index of each maximum (of equal ones the first, row by row), int64 of the same
        shape, -1 in empty bins.
    """
    values = as_float(features)
    channels, height, width = values.shape[1:]
    rows, columns = output_size
    top, bottom, left, right = _bins(rois.to(values.dtype), (rows, columns), spatial_scale, (height, width))
    count = len(rois)
    top, bottom = (t[:, :, None].expand(count, rows, columns).flatten() for t in (top, bottom))
    left, right = (t[:, None, :].expand(count, rows, columns).flatten() for t in (left, right))
    image = rois[:, 0].long()[:, None].expand(count, rows * columns).flatten()

    pooled = zeros_in_graph(values, count * rows * columns, channels)
    place = torch.full(pooled.shape, -1, device=rois.device)
    filled = ((bottom > top) & (right > left)).nonzero()[:, 0]
    if len(filled) and channels:
        # A range of n rows is covered by two windows of 2^k <= n rows, one at each end: maxima of windows of a few
        # sizes, taken once over the whole map, answer every bin with four look-ups.
        power = torch.stack([_floor_log2((bottom - top)[filled]), _floor_log2((right - left)[filled])], 1)
        kinds, kind = power.unique(dim=0, return_inverse=True)
        for k, (down, across) in enumerate(kinds.tolist()):
            member = filled[kind == k]
            size = (1 << down, 1 << across)
            window, where = F.max_pool2d(values, size, stride=1, return_indices=True)
            window, where = window.permute(0, 2, 3, 1), where.permute(0, 2, 3, 1)  # B h w C
            ys = torch.stack([top[member], bottom[member] - size[0]], 1)[:, [0, 0, 1, 1]]
            xs = torch.stack([left[member], right[member] - size[1]], 1)[:, [0, 1, 0, 1]]
            corner = (image[member][:, None], ys, xs)
            candidates, pixels = window[corner], where[corner]  # (n, 4, C)
            highest = candidates.detach().amax(1, keepdim=True)
            # Of equal maxima the first pixel, row by row: it alone has the gradient.
            which = pixels.masked_fill(candidates < highest, height * width).argmin(1, keepdim=True)
            pooled = pooled.index_put((member,), candidates.gather(1, which)[:, 0])
            place[member] = pixels.gather(1, which)[:, 0]
    shape = (count, rows, columns, channels)
    return (
        pooled.reshape(shape).permute(0, 3, 1, 2).to(features.dtype).contiguous(),
        place.reshape(shape).permute(0, 3, 1, 2).contiguous(),
    )


def _bins(
    rois: Tensor, bins: tuple[int, int], spatial_scale: float, map_size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First and last + 1 row (R, rows), first and last + 1 column (R, columns) of each bin, clipped to the map."""
    x1, y1 = rois[:, 1] * spatial_scale, rois[:, 2] * spatial_scale
    x2, y2 = (rois[:, 3] + 1) * spatial_scale, (rois[:, 4] + 1) * spatial_scale
    malformed = ((x2 - x1 <= 0) | (y2 - y1 <= 0))[:, None]
    limits = []
    for start, end, number, size in ((y1, y2, bins[0], map_size[0]), (x1, x2, bins[1], map_size[1])):
        bin_size = ((end - start) / number)[:, None]
        index = torch.arange(number, device=rois.device, dtype=rois.dtype)
        first = (index * bin_size + start[:, None]).floor().long().clamp(0, size)
        last = ((index + 1) * bin_size + start[:, None]).ceil().long().clamp(0, size)
        limits += [first, torch.where(malformed, first, last)]
    return tuple(limits)


def _floor_log2(n: Tensor) -> Tensor:
    return torch.frexp(n.double())[1] - 1
