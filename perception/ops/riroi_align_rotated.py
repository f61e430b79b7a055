"""Rotation-invariant RoIAlign of ReDet."""

import math

import torch
from torch import Tensor

from perception.ops._dtype import as_float
from perception.ops.roi_align_rotated import roi_align_rotated

__all__ = ["riroi_align_rotated"]


def riroi_align_rotated(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    num_samples: int = 0,
    num_orientations: int = 8,
    clockwise: bool = False,
) -> Tensor:
    r"""Rotated RoIAlign that also turns the orientation channels by the region's angle (ReDet, arXiv:2103.07733).

    Orientation o of the result is interpolated between orientations o - i and o - i + 1, where i is the angle in steps
    of the orientation grid, rounded down. Pixel centres lie at integer coordinates and regions are at least one pixel
    of the map wide and high.

    Args:
        features: of shape :math:`(B, C O, H, W)` with O orientation channels in a row.
        rois: (image index, cx, cy, w, h, angle) in pixels of the image and radians, of shape :math:`(R, 6)`.
        output_size: rows and columns of bins.
        spatial_scale: size of the map divided by the size of the image.
        num_samples: samples per bin and axis; 0 for as many as the bin has pixels, rounded up.
        num_orientations: number O of orientation channels.
        clockwise: whether a positive angle turns clockwise as seen in the image (y axis down).

    Returns:
        Tensor of shape :math:`(R, C O, \text{rows}, \text{columns})`.
    """
    values = as_float(features)
    rois = rois.detach().to(values.dtype)
    pooled = roi_align_rotated(values, rois, output_size, spatial_scale, num_samples, False, clockwise)
    pooled = pooled.unflatten(1, (-1, num_orientations))  # R C O rows columns
    step = rois[:, 5] * num_orientations / (2 * math.pi)
    whole = step.floor()
    part = (step - whole).reshape(-1, 1, 1, 1, 1)
    orientation = torch.arange(num_orientations, device=rois.device)
    source = (orientation - whole[:, None].long()) % num_orientations  # R O
    below = _pick(pooled, source)
    above = _pick(pooled, (source + 1) % num_orientations)
    return ((1 - part) * below + part * above).flatten(1, 2).to(features.dtype)


def _pick(pooled: Tensor, orientation: Tensor) -> Tensor:
    return pooled.gather(2, orientation[:, None, :, None, None].expand_as(pooled))
