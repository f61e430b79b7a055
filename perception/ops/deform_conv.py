"""Deformable convolution, version 1."""

import torch
import torchvision
from torch import Tensor

from perception.ops._dtype import as_float, zeros_in_graph
from perception.ops.registration import kernels_of

__all__ = ["deform_conv2d"]


@kernels_of("torchvision")
def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    deform_groups: int = 1,
) -> Tensor:
    r"""Convolution whose taps are displaced by a learned offset (arXiv:1703.06211).

    Args:
        x: input of shape :math:`(B, C, H, W)`.
        offset: displacement of each tap in pixels, of shape :math:`(B, 2 D k_h k_w, H', W')` for D deformable groups:
            for each group and tap first y, then x.
        weight: of shape :math:`(C', C / G, k_h, k_w)` for G groups of input and output channels.
        stride: (y, x) step.
        padding: (y, x) zeros on both sides.
        dilation: (y, x) spacing of the taps.
        deform_groups: groups of input channels with their own offsets.

    Returns:
        Tensor of shape :math:`(B, C', H', W')`.
    """
    return deformable_convolution(x, offset, None, weight, None, stride, padding, dilation, deform_groups)


def deformable_convolution(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    deform_groups: int,
) -> Tensor:
    """Both versions of the operator."""
    dtype = x.dtype
    values = as_float(x)
    offset, weight = offset.to(values.dtype), weight.to(values.dtype)
    mask = None if mask is None else mask.to(values.dtype)
    bias = None if bias is None else bias.to(values.dtype)
    if x.shape[0] == 0:
        return zeros_in_graph(weight, 0, weight.shape[0], *offset.shape[2:]).to(dtype)
    if torch.is_grad_enabled() and offset.requires_grad:
        # Exactly one pixel outside the map (zero offsets with padding 1) a tap reads zero. torchvision's gradient by
        # the offset is that of moving it inwards there, mmcv's is zero.
        inside = taps_inside(offset, x.shape[2:], weight.shape[2:], stride, padding, dilation, deform_groups)
        offset = torch.where(inside, offset, offset.detach())
    result = torchvision.ops.deform_conv2d(values, offset, weight, bias, stride, padding, dilation, mask)
    return result.to(dtype)


def taps_inside(
    offset: Tensor,
    map_size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    deform_groups: int,
) -> Tensor:
    """Which taps read less than one pixel outside the map, as a mask of the shape of ``offset``."""
    batch, _, rows, columns = offset.shape
    displacement = offset.detach().reshape(batch, deform_groups, *kernel, 2, rows, columns)
    inside = torch.ones_like(displacement[:, :, :, :, 0], dtype=torch.bool)
    for axis, size in enumerate(map_size):
        number = torch.arange(offset.shape[2 + axis], device=offset.device, dtype=offset.dtype)
        tap = torch.arange(kernel[axis], device=offset.device, dtype=offset.dtype)
        # Broadcasts over (kernel rows, kernel columns, output rows, output columns).
        at_output = (number * stride[axis] - padding[axis]).reshape((-1, 1) if axis == 0 else (-1,))
        at_tap = (tap * dilation[axis]).reshape((-1, 1, 1, 1) if axis == 0 else (-1, 1, 1))
        place = displacement[:, :, :, :, axis] + at_tap + at_output
        inside &= (place > -1) & (place < size)
    return inside[:, :, :, :, None].expand_as(displacement).reshape(offset.shape)
