"""RoIAlign with average and maximum pooling."""

import torch
import torchvision
from torch import Tensor

from perception.ops._dtype import as_float, zeros_in_graph
from perception.ops._sampling import bilinear_taps, gather_weighted, roi_grids, sample_positions
from perception.ops.registration import kernels_of

__all__ = ["roi_align", "roi_align_backward", "roi_max_align", "roi_max_align_backward"]

# Maximum of a bin without samples: a compiled CPU mmcv starts its search for the maximum there.
_LOWEST = -10000.0


@kernels_of("torchvision")
def roi_align(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Tensor:
    r"""Average of bilinear samples in each bin of each region (Mask R-CNN, arXiv:1703.06870).

    Args:
        features: maps of shape :math:`(B, C, H, W)`.
        rois: (image index, x1, y1, x2, y2) in pixels of the image, of shape :math:`(R, 5)`.
        output_size: rows and columns of bins.
        spatial_scale: size of the map divided by the size of the image.
        sampling_ratio: samples per bin and axis; 0 for as many as the bin has pixels, rounded up.
        aligned: whether pixel centres lie at half-integer coordinates (Detectron2). The older rule puts them at
            integers and enlarges regions to at least one pixel of the map.

    Returns:
        Tensor of shape :math:`(R, C, \text{rows}, \text{columns})`.
    """
    values = as_float(features)
    pooled = torchvision.ops.roi_align(
        values, rois.to(values.dtype), tuple(output_size), spatial_scale, sampling_ratio, aligned
    )
    return pooled.to(features.dtype)


def roi_align_backward(
    grad: Tensor,
    rois: Tensor,
    features_shape: tuple[int, int, int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Gradient of :func:`roi_align` by the features, from that of its result (R, C, rows, columns)."""
    values = as_float(grad)
    if values.numel() == 0:
        return grad.new_zeros(features_shape)
    gradient = torch.ops.torchvision._roi_align_backward(
        values, rois.to(values.dtype), spatial_scale, *grad.shape[2:], *features_shape, sampling_ratio, aligned
    )
    return gradient.to(grad.dtype)


def roi_max_align(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Maximum of bilinear samples in each bin of each region.

    A sample further than one pixel outside the map counts as zero. A bin without samples (a region of no size, sampled
    with ratio 0) gives -10000.

    Args:
        features: maps of shape :math:`(B, C, H, W)`.
        rois: (image index, x1, y1, x2, y2) in pixels of the image, of shape :math:`(R, 5)`.
        output_size: rows and columns of bins.
        spatial_scale: size of the map divided by the size of the image.
        sampling_ratio: samples per bin and axis; 0 for as many as the bin has pixels, rounded up.
        aligned: as in :func:`roi_align`.

    Returns:
        The maxima, of shape :math:`(R, C, \text{rows}, \text{columns})`, and the y and x coordinates on the map of the
        samples that gave them, of the same shape; -1 where there is none.
    """
    values = as_float(features)
    height, width = values.shape[2:]
    rows, columns = output_size
    image, start, bin_size = _regions(rois.detach().to(values.dtype), output_size, spatial_scale, aligned)
    shape = (len(rois), rows, columns, values.shape[1])
    pooled = zeros_in_graph(values, *shape) + _LOWEST
    place_y, place_x = values.new_full(shape, -1), values.new_full(shape, -1)
    numbers = max(16, values.shape[1])
    for block, down, across in roi_grids(bin_size[:, 1], bin_size[:, 0], sampling_ratio, (rows, columns), numbers):
        if down * across == 0:
            continue
        y = sample_positions(start[block, 1], bin_size[block, 1], rows, down)
        x = sample_positions(start[block, 0], bin_size[block, 0], columns, across)
        grid = (len(block), rows, columns, down, across)
        y, x = y[:, :, None, :, None].expand(grid).flatten(3), x[:, None, :, None, :].expand(grid).flatten(3)
        samples = gather_weighted(values, image[block], *bilinear_taps(y, x, height, width))  # r rows columns G C
        best, which = samples.max(3)
        found = best > _LOWEST
        pooled = pooled.index_put((block,), torch.where(found, best, _LOWEST))
        place_y[block] = torch.where(found, y.gather(3, which), -1)
        place_x[block] = torch.where(found, x.gather(3, which), -1)
    pooled, place_y, place_x = (t.permute(0, 3, 1, 2) for t in (pooled, place_y, place_x))
    return pooled.to(features.dtype), place_y, place_x


def roi_max_align_backward(
    grad: Tensor, rois: Tensor, place_y: Tensor, place_x: Tensor, features_shape: tuple[int, int, int, int]
) -> Tensor:
    """Gradient of :func:`roi_max_align` by the features, given where the maxima were found."""
    batch, channels, height, width = features_shape
    values = as_float(grad)
    index, weight = bilinear_taps(place_y.to(values.dtype), place_x.to(values.dtype), height, width)
    weight = weight * (place_y != -1)[..., None]
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)  # R C
    flat = (plane[:, :, None, None, None] * (height * width) + index).flatten()
    gradient = values.new_zeros(batch * channels * height * width)
    gradient.index_add_(0, flat, (values[..., None] * weight).flatten())
    return gradient.reshape(features_shape).to(grad.dtype)


def _regions(
    rois: Tensor, output_size: tuple[int, int], spatial_scale: float, aligned: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Image index (R,), first corner (R, 2) and bin size (R, 2) as (x, y) on the map."""
    corners = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    size = corners[:, 2:] - corners[:, :2]
    if not aligned:
        size = size.clamp(min=1)
    rows, columns = output_size
    return rois[:, 0].long(), corners[:, :2], size / size.new_tensor([columns, rows])
