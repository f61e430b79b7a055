"""Deformable convolution, version 2."""

from torch import Tensor

from perception.ops.deform_conv import deformable_convolution
from perception.ops.registration import kernels_of

__all__ = ["modulated_deform_conv2d"]


@kernels_of("torchvision")
def modulated_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    deform_groups: int = 1,
) -> Tensor:
    r"""Convolution whose taps are displaced and weighted by learned maps (arXiv:1811.11168).

    Args:
        x: input of shape :math:`(B, C, H, W)`.
        offset: displacement of each tap in pixels, of shape :math:`(B, 2 D k_h k_w, H', W')` for D deformable groups:
            for each group and tap first y, then x.
        mask: factor of each tap, of shape :math:`(B, D k_h k_w, H', W')`.
        weight: of shape :math:`(C', C / G, k_h, k_w)` for G groups of input and output channels.
        bias: of shape :math:`(C',)`.
        stride: (y, x) step.
        padding: (y, x) zeros on both sides.
        dilation: (y, x) spacing of the taps.
        deform_groups: groups of input channels with their own offsets and masks.

    Returns:
        Tensor of shape :math:`(B, C', H', W')`.
    """
    return deformable_convolution(x, offset, mask, weight, bias, stride, padding, dilation, deform_groups)
