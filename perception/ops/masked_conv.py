"""Convolution at selected places."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["masked_conv2d", "masked_im2col"]


def masked_conv2d(features: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int]) -> Tensor:
    r"""Convolution with stride 1, computed where a mask is positive and zero elsewhere (guided anchoring, 1901.03278).

    Args:
        features: of shape :math:`(1, C, H, W)`.
        mask: of shape :math:`(1, H, W)`.
        weight: of shape :math:`(C', C, k_h, k_w)`.
        bias: of shape :math:`(C',)`.
        padding: (y, x) zeros on both sides; half the kernel, so that the output has the mask's size.

    Returns:
        Tensor of shape :math:`(1, C', H, W)`.
    """
    rows, columns = (mask[0] > 0).nonzero(as_tuple=True)
    windows = masked_im2col(features, rows, columns, tuple(weight.shape[2:]), padding)
    output = features.new_zeros(len(weight), *mask.shape[1:])
    values = weight.flatten(1) @ windows + bias[:, None]
    channel = torch.arange(len(weight), device=weight.device)[:, None]
    return output.index_put((channel, rows, columns), values)[None]


def masked_im2col(
    features: Tensor, rows: Tensor, columns: Tensor, kernel: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Windows around places (P,), (P,) of an image (1, C, H, W), zero outside it, as columns (C k_h k_w, P)."""
    padded = F.pad(features[0], [padding[1], padding[1], padding[0], padding[0]])
    windows = padded.unfold(1, kernel[0], 1).unfold(2, kernel[1], 1)  # C H W k_h k_w
    return windows[:, rows, columns].permute(0, 2, 3, 1).flatten(0, 2)
