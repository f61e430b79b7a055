"""Deformable convolutions."""

from torch import Tensor

from perception.ops import deform_conv as _deform_conv
from perception.ops import modulated_deform_conv as _modulated_deform_conv
from perception.ops._mmcv._common import kernel, vjp

__all__ = [
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "deform_conv_forward",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
]


@kernel
def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    geometry = (dH, dW), (padH, padW), (dilationH, dilationW), deformable_group
    output.copy_(_deform_conv.deform_conv2d(input, offset, weight, *geometry))


@kernel
def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    def convolve(x: Tensor, displacement: Tensor, kernel_weight: Tensor) -> Tensor:
        geometry = (dH, dW), (padH, padW), (dilationH, dilationW), deformable_group
        return _deform_conv.deform_conv2d(x, displacement, kernel_weight, *geometry)

    grad_input, grad_offset, grad_weight = vjp(convolve, [input, offset, weight], gradOutput)
    gradInput.copy_(grad_input)
    gradOffset.copy_(grad_offset)
    # All gradients come out of one pass. The next call asks for that of the weight; `columns` is memory that mmcv hands
    # to both for their own use.
    columns.resize_(weight.shape).copy_(grad_weight)


@kernel
def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    if columns.shape != gradWeight.shape:  # neither the input nor the offset needed a gradient

        def convolve(kernel_weight: Tensor) -> Tensor:
            geometry = (dH, dW), (padH, padW), (dilationH, dilationW), deformable_group
            return _deform_conv.deform_conv2d(input, offset, kernel_weight, *geometry)

        columns = vjp(convolve, [gradWeight], gradOutput)[0]
    gradWeight.add_(columns, alpha=scale)


@kernel
def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    geometry = (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), deformable_group
    constant = bias if with_bias else None
    output.copy_(_modulated_deform_conv.modulated_deform_conv2d(input, offset, mask, weight, constant, *geometry))


@kernel
def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    def convolve(x: Tensor, displacement: Tensor, factor: Tensor, kernel_weight: Tensor) -> Tensor:
        geometry = (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), deformable_group
        return _modulated_deform_conv.modulated_deform_conv2d(x, displacement, factor, kernel_weight, None, *geometry)

    gradients = vjp(convolve, [input, offset, mask, weight], grad_output)
    for buffer, gradient in zip((grad_input, grad_offset, grad_mask, grad_weight), gradients):
        buffer.copy_(gradient)
    if with_bias:
        grad_bias.copy_(grad_output.sum((0, 2, 3)))
