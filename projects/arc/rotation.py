"""Rotation of 3x3 kernels by bilinear interpolation, as a linear map of their nine taps (paper section 3.1)."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

# An entry of the map is a combination of 1, x, y and xy with x = cos and y = sin of the angle.
_TERMS = {
    "1": (1, 0, 0, 0),
    "a": (0, 1, -1, 0),  # x - y
    "b": (0, 0, 0, 1),  # xy
    "c": (0, 1, 1, 0),  # x + y
    "x": (0, 1, 0, 0),
    "y": (0, 0, 1, 0),
}
# For each output tap the taps that it reads, for angles >= 0. Rows 5 to 8 follow by half a turn: tap t becomes 8 - t.
_POSITIVE = (
    {0: "+a", 1: "+1-a"},
    {1: "+x-b", 2: "+b", 4: "+1-c+b", 5: "+y-b"},
    {2: "+a", 5: "+1-a"},
    {0: "+b", 1: "+y-b", 3: "+x-b", 4: "+1-c+b"},
    {4: "+1"},
)
# Angles < 0.
_NEGATIVE = (
    {0: "+c", 3: "+1-c"},
    {0: "-b", 1: "+x+b", 3: "+b-y", 4: "+1-a-b"},
    {1: "+1-c", 2: "+c"},
    {3: "+x+b", 4: "+1-a-b", 6: "-b", 7: "+b-y"},
    {4: "+1"},
)


def rotation_matrix(theta: Tensor) -> Tensor:
    r"""The map R under which :math:`w'_t = \sum_s R_{ts} w_s` are the taps of a rotated kernel.

    Tap t lies at (column, row) = (t % 3 - 1, t // 3 - 1), y down. It reads the kernel at its place turned by ``theta``
    from x towards y, with the border repeated, so that the pattern turns counter-clockwise as seen on a screen. Up to
    45 degrees this equals ``grid_sample`` (bilinear, border padding, aligned corners); beyond, it extrapolates.

    Args:
        theta: angles in radians, of any shape (...). At 0 the derivative is that from above.

    Returns:
        Tensor of shape (..., 9, 9); rows sum to 1.
    """
    positive, negative = _coefficients(theta.device, theta.dtype)
    cos, sin = theta.cos(), theta.sin()
    basis = torch.stack([torch.ones_like(theta), cos, sin, cos * sin], -1)
    entries = torch.where((theta >= 0)[..., None], basis @ positive, basis @ negative)
    return entries.unflatten(-1, (9, 9))


def combine_kernels(weight: Tensor, alpha: Tensor, theta: Tensor) -> Tensor:
    r"""One kernel per sample: the sum of rotated kernels, each with its gate (paper eq. 5).

    Args:
        weight: n kernels, of shape :math:`(n, C_{out}, C_{in}, 3, 3)`.
        alpha: gates of shape :math:`(B, n)`.
        theta: angles in radians, of shape :math:`(B, n)`.

    Returns:
        Kernels of shape :math:`(B, C_{out}, C_{in}, 3, 3)`, in the type of ``weight``. The map is made in the type of
        the angles, which should be float32 also where the kernels are half precision.
    """
    number, out_channels, in_channels = weight.shape[:3]
    batch = len(alpha)
    mix = (alpha[..., None, None] * rotation_matrix(theta)).to(weight.dtype)  # (B, n, 9 to, 9 from)
    mix = mix.permute(1, 3, 0, 2).reshape(number * 9, batch * 9)
    # One product of matrices; a view where the weights are laid out as `kernel_storage` does it, else a copy.
    taps = weight.permute(1, 2, 0, 3, 4).reshape(out_channels * in_channels, number * 9)
    total = (taps @ mix).reshape(out_channels * in_channels, batch, 9).transpose(0, 1)
    return total.reshape(batch, out_channels, in_channels, 3, 3)


def kernel_storage(number: int, out_channels: int, in_channels: int) -> Tensor:
    """Uninitialised weights for :func:`combine_kernels`: the n kernels of a pair of channels lie together in memory."""
    return torch.empty(out_channels, in_channels, number, 3, 3).permute(2, 0, 1, 3, 4)


@functools.cache
def _coefficients(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Coefficients (4, 81) of the terms in every entry, for angles >= 0 and < 0."""
    with torch.inference_mode(False):  # they outlive the call, and later ones may want gradients
        return _table(_POSITIVE).to(device, dtype), _table(_NEGATIVE).to(device, dtype)


def _table(rows: tuple[dict[int, str], ...]) -> Tensor:
    table = torch.zeros(4, 9, 9, dtype=torch.float64)
    for row, entries in enumerate(rows):
        for column, terms in entries.items():
            value = torch.zeros(4, dtype=torch.float64)
            for sign, term in zip(terms[::2], terms[1::2]):
                value += (1 if sign == "+" else -1) * torch.tensor(_TERMS[term], dtype=torch.float64)
            table[:, row, column] = value
            table[:, 8 - row, 8 - column] = value
    return table.flatten(1)
