"""Feature refinement of R3Det."""

import torch
from torch import Tensor

from perception.ops._dtype import as_float
from perception.ops._sampling import bilinear_taps, gather_weighted
from perception.ops.polygons import rotate

__all__ = ["rotated_feature_align"]

_CORNERS = [[1, 1], [-1, 1], [-1, -1], [1, -1]]


def rotated_feature_align(features: Tensor, boxes: Tensor, spatial_scale: float = 1 / 8, points: int = 1) -> Tensor:
    r"""Adds to each pixel the features at the centre (and corners) of the box predicted there.

    The feature refinement of R3Det (arXiv:1908.05612). The original kernel reads the first coordinate of a box as y and
    the second as x, and so do compiled mmcv and this function.

    Args:
        features: of shape :math:`(B, C, H, W)`.
        boxes: one box (y, x, w, h, angle) per pixel, in pixels of the image and radians, of shape
            :math:`(B, H, W, 5)`.
        spatial_scale: size of the map divided by the size of the image.
        points: 1 for the centre, 5 for centre and corners.

    Returns:
        Tensor of the shape of ``features``.

    Raises:
        ValueError: if ``points`` is neither 1 nor 5.
    """
    if points not in (1, 5):
        raise ValueError(f"points must be 1 or 5, got {points}")
    values = as_float(features)
    batch, _, height, width = values.shape
    boxes = boxes.detach().to(values.dtype)
    centre, size, angle = boxes[..., [1, 0]] * spatial_scale, boxes[..., 2:4] * spatial_scale, boxes[..., 4]
    places = centre[..., None, :]
    if points == 5:
        corners = rotate(size[..., None, :] / 2 * size.new_tensor(_CORNERS), angle[..., None])
        places = torch.cat([places, places + corners], -2)
    index, weight = bilinear_taps(places[..., 1], places[..., 0], height, width)  # B H W points 4
    image = torch.arange(batch, device=features.device)
    sampled = gather_weighted(values, image, index.flatten(3), weight.flatten(3))  # B H W C
    return (values + sampled.permute(0, 3, 1, 2)).to(features.dtype)
