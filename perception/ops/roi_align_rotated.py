"""RoIAlign for rotated regions."""

import torch
from torch import Tensor

from perception.ops._dtype import as_float, zeros_in_graph
from perception.ops._sampling import bilinear_taps, gather_weighted, roi_grids, sample_positions
from perception.ops.backend import native
from perception.ops.registration import FULL_AND_HALF, native_kernel, no_second_derivative

__all__ = ["roi_align_rotated"]


def roi_align_rotated(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
    clockwise: bool = False,
) -> Tensor:
    r"""Average of bilinear samples in each bin of each rotated region (RRPN, arXiv:1703.01086).

    Differentiable by the features only. On CUDA the gradient is summed by atomic additions, whose order (so, the last
    digits) differs between runs.

    Args:
        features: maps of shape :math:`(B, C, H, W)`.
        rois: (image index, cx, cy, w, h, angle) in pixels of the image and radians, of shape :math:`(R, 6)`.
        output_size: rows and columns of bins.
        spatial_scale: size of the map divided by the size of the image.
        sampling_ratio: samples per bin and axis; 0 for as many as the bin has pixels, rounded up.
        aligned: whether pixel centres lie at half-integer coordinates. The older rule puts them at integers and
            enlarges regions to at least one pixel of the map.
        clockwise: whether a positive angle turns clockwise as seen in the image (y axis down).

    Returns:
        Tensor of shape :math:`(R, C, \text{rows}, \text{columns})`.
    """
    if native("roi_align_rotated", features):
        return torch.ops.perception.roi_align_rotated(
            features, rois.detach(), *output_size, spatial_scale, sampling_ratio, aligned, clockwise
        )
    values, rois = as_float(features), rois.detach()
    height, width = values.shape[2:]
    rows, columns = output_size
    rois = rois.to(values.dtype)
    image = rois[:, 0].long()
    centre = rois[:, 1:3] * spatial_scale - (0.5 if aligned else 0.0)
    size = rois[:, 3:5] * spatial_scale
    if not aligned:
        size = size.clamp(min=1)
    angle = -rois[:, 5] if clockwise else rois[:, 5]
    cos, sin = angle.cos(), angle.sin()
    bin_size = size / size.new_tensor([columns, rows])

    pooled = zeros_in_graph(values, len(rois), rows, columns, values.shape[1])
    for block, down, across in roi_grids(bin_size[:, 1], bin_size[:, 0], sampling_ratio, (rows, columns)):
        if down * across == 0:
            continue
        v = sample_positions(-size[block, 1] / 2, bin_size[block, 1], rows, down)[:, :, None, :, None]
        u = sample_positions(-size[block, 0] / 2, bin_size[block, 0], columns, across)[:, None, :, None, :]
        c, s, (x0, y0) = _spread(cos[block]), _spread(sin[block]), map(_spread, centre[block].unbind(1))
        index, weight = bilinear_taps(v * c - u * s + y0, v * s + u * c + x0, height, width)
        # All taps of all samples of a bin make one weighted sum.
        mean = gather_weighted(values, image[block], index.flatten(3), weight.flatten(3) / (down * across))
        pooled = pooled.index_put((block,), mean)
    return pooled.permute(0, 3, 1, 2).to(features.dtype).contiguous()


def _spread(x: Tensor) -> Tensor:
    return x.reshape(-1, 1, 1, 1, 1)


def _remember(ctx, inputs, output):
    features, rois, _, _, *ctx.options = inputs
    ctx.shape = features.shape
    ctx.save_for_backward(rois)


def _derivative(ctx, grad):
    (rois,), (batch, _, height, width) = ctx.saved_tensors, ctx.shape
    pulled = torch.ops.perception.roi_align_rotated_backward(grad, rois, batch, height, width, *ctx.options)
    return pulled, *[None] * 7


@native_kernel(
    "roi_align_rotated(Tensor features, Tensor rois, int rows, int columns, float spatial_scale, "
    "int sampling_ratio, bool aligned, bool clockwise) -> Tensor",
    types=FULL_AND_HALF,
    setup_context=_remember,
    backward=_derivative,
)
def _fake(features, rois, rows, columns, spatial_scale, sampling_ratio, aligned, clockwise):
    return features.new_empty(rois.shape[0], features.shape[1], rows, columns)


@native_kernel(
    "roi_align_rotated_backward(Tensor grad, Tensor rois, SymInt batch, SymInt height, SymInt width, "
    "float spatial_scale, int sampling_ratio, bool aligned, bool clockwise) -> Tensor",
    backward=no_second_derivative("roi_align_rotated"),
)
def _fake_backward(grad, rois, batch, height, width, spatial_scale, sampling_ratio, aligned, clockwise):
    return grad.new_empty(batch, grad.shape[1], height, width)
