"""Bilinear sampling under the border rule of RoIAlign, and the sampling grids of RoIs."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.ops._dtype import zeros_in_graph

# Numbers held at once in a block of RoIs: bounds the memory to some hundred megabytes.
_NUMBERS_AT_ONCE = 1 << 24


def bilinear_taps(y: Tensor, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Pixels and weights that interpolate a map at given places, in pixel indices.

    Places up to one pixel outside the map read its border; what is further away reads zero (all weights are zero).

    Args:
        y: row coordinates, of any shape (...).
        x: column coordinates, same shape.
        height: rows of the map.
        width: columns of the map.

    Returns:
        Flat pixel indices (..., 4), int64, and weights (..., 4).
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y_low, y_high, y_part = _neighbours(torch.where(inside, y, 0), height)
    x_low, x_high, x_part = _neighbours(torch.where(inside, x, 0), width)
    index = torch.stack(
        [y_low * width + x_low, y_low * width + x_high, y_high * width + x_low, y_high * width + x_high], -1
    )
    weight = torch.stack(
        [(1 - y_part) * (1 - x_part), (1 - y_part) * x_part, y_part * (1 - x_part), y_part * x_part], -1
    )
    return index, weight * inside[..., None]


def _neighbours(place: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    place = place.clamp(min=0, max=size - 1)
    low = place.detach().floor()
    high = (low + 1).clamp(max=size - 1)
    return low.long(), high.long(), place - low


def gather_weighted(maps: Tensor, image: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of feature vectors.

    Args:
        maps: feature maps of shape (B, C, H, W).
        image: index into the batch for each row, of shape (R,).
        index: flat pixel indices, of shape (R, ..., K).
        weight: of the same shape.

    Returns:
        Tensor of shape (R, ..., C).
    """
    batch, channels, height, width = maps.shape
    table = maps.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    row = index + (image * (height * width)).reshape(-1, *[1] * (index.dim() - 1))
    shape, taps = index.shape[:-1], index.shape[-1]
    if row.numel() == 0 or table.numel() == 0:
        return zeros_in_graph(maps, *shape, channels)
    summed = F.embedding_bag(
        row.reshape(-1, taps), table, per_sample_weights=weight.reshape(-1, taps).to(table.dtype), mode="sum"
    )
    return summed.reshape(*shape, channels)


def roi_grids(
    bin_height: Tensor, bin_width: Tensor, sampling_ratio: int, bins: tuple[int, int], numbers_per_sample: int = 16
) -> Iterator[tuple[Tensor, int, int]]:
    """Splits RoIs into blocks whose bins are sampled by the same grid.

    Args:
        bin_height: height of the bins of each RoI in pixels of the map, of shape (R,).
        bin_width: their width.
        sampling_ratio: samples per bin and axis; 0 for as many as the bin has pixels, rounded up.
        bins: rows and columns of bins.
        numbers_per_sample: how many numbers the caller holds for each sample, which limits the size of a block.

    Yields:
        Indices of the block's RoIs, (rows, columns) of the samples in each bin; either may be zero.
    """
    if sampling_ratio > 0:
        grids = {(sampling_ratio, sampling_ratio): torch.arange(len(bin_height), device=bin_height.device)}
    else:
        grid = torch.stack([bin_height.detach().ceil(), bin_width.detach().ceil()], 1).long().clamp(min=0)
        kinds, kind = grid.unique(dim=0, return_inverse=True)
        grids = {tuple(size): (kind == k).nonzero()[:, 0] for k, size in enumerate(kinds.tolist())}
    for (rows, columns), members in grids.items():
        per_roi = max(1, numbers_per_sample * rows * columns * bins[0] * bins[1])
        for block in members.split(max(1, _NUMBERS_AT_ONCE // per_roi)):
            yield block, rows, columns


def sample_positions(start: Tensor, bin_size: Tensor, bins: int, samples: int) -> Tensor:
    """Coordinates (R, bins, samples) of the samples along one axis of RoIs that begin at ``start`` (R,)."""
    number = torch.arange(bins, device=start.device, dtype=start.dtype)
    part = torch.arange(samples, device=start.device, dtype=start.dtype) + 0.5
    # In mmcv's order of operations, so that a sample that falls on the border of the map does so here too.
    begin = start[:, None] + number * bin_size[:, None]
    return begin[..., None] + (part * bin_size[:, None] / max(samples, 1))[:, None]
