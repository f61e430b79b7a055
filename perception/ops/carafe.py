"""CARAFE: content-aware reassembly of features."""

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.ops._dtype import as_float
from perception.ops.backend import native
from perception.ops.registration import FULL_AND_HALF, native_kernel, no_second_derivative

__all__ = ["carafe"]


def carafe(features: Tensor, masks: Tensor, kernel_size: int, groups: int, scale_factor: int) -> Tensor:
    r"""Upsampling in which each output pixel is its own weighted sum of a window of the input.

    Equation 4 of arXiv:1905.02188. Pixels outside the map count as zero. Half-precision inputs are summed in float32.

    Args:
        features: of shape :math:`(B, C, H, W)`.
        masks: weights of the window for each output pixel, of shape :math:`(B, G k^2, sH, sW)`.
        kernel_size: size k of the window, odd.
        groups: number G of groups of channels with their own weights; divides C.
        scale_factor: integer s >= 1.

    Returns:
        Tensor of shape :math:`(B, C, sH, sW)`.

    Raises:
        ValueError: if the kernel size is even or the masks do not fit the features.
    """
    batch, channels, height, width = features.shape
    expected = (batch, groups * kernel_size**2, height * scale_factor, width * scale_factor)
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, got {kernel_size}")
    if masks.shape != expected:
        raise ValueError(f"masks must have the shape {expected}, got {tuple(masks.shape)}")
    if native("carafe", features, masks):
        return torch.ops.perception.carafe(features, masks, kernel_size, groups, scale_factor)
    values = as_float(features)
    padded = F.pad(values, [kernel_size // 2] * 4)
    padded = padded.reshape(batch, groups, channels // groups, *padded.shape[2:])
    # An output pixel is (input pixel, place within it), so that no upsampled copy of the features is made.
    weights = masks.to(values.dtype).reshape(
        batch, groups, 1, kernel_size**2, height, scale_factor, width, scale_factor
    )
    output = values.new_zeros(batch, groups, channels // groups, height, scale_factor, width, scale_factor)
    for tap in range(kernel_size**2):
        y, x = divmod(tap, kernel_size)
        window = padded[..., y : y + height, None, x : x + width, None]
        output = torch.addcmul(output, window, weights[:, :, :, tap])
    return output.reshape(batch, channels, height * scale_factor, width * scale_factor).to(features.dtype)


def _remember(ctx, inputs, output):
    features, masks, *ctx.options = inputs
    ctx.save_for_backward(features, masks)


def _derivative(ctx, grad):
    return *torch.ops.perception.carafe_backward(grad, *ctx.saved_tensors, *ctx.options), None, None, None


@native_kernel(
    "carafe(Tensor features, Tensor masks, int kernel_size, int groups, int scale_factor) -> Tensor",
    types=FULL_AND_HALF,
    mixed_types=True,
    setup_context=_remember,
    backward=_derivative,
)
def _fake(features, masks, kernel_size, groups, scale_factor):
    batch, channels, height, width = features.shape
    return features.new_empty(batch, channels, height * scale_factor, width * scale_factor)


@native_kernel(
    "carafe_backward(Tensor grad, Tensor features, Tensor masks, int kernel_size, int groups, int scale_factor) "
    "-> (Tensor, Tensor)",
    backward=no_second_derivative("carafe"),
)
def _fake_backward(grad, features, masks, kernel_size, groups, scale_factor):
    return features.new_empty(features.shape), masks.new_empty(masks.shape)
