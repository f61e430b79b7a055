"""Multi-resolution hash encoding (Instant NGP, arXiv:2201.05989) in the memory layout of tiny-cuda-nn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from perception.ops._dtype import round_to_dtype
from perception.ops.backend import native
from perception.ops.registration import FULL, native_kernel

__all__ = ["HashGridLayout", "hash_grid", "hash_grid_layout"]

_PRIMES = (1, 2654435761, 805459861)
_UINT32 = 0xFFFFFFFF
_MOST_LEVELS = 32  # of the native kernel


class HashGridLayout(NamedTuple):
    """Where the entries of each of L levels are."""

    offsets: tuple[int, ...]  # (L + 1,) first entry of each level, and the number of all entries
    resolutions: tuple[int, ...]  # (L,) vertices per axis
    scales: tuple[float, ...]  # (L,) cells per unit

    @property
    def num_entries(self) -> int:
        """Rows of the table of features."""
        return self.offsets[-1]


def hash_grid_layout(
    num_levels: int = 16, base_resolution: int = 16, per_level_scale: float = 2.0, log2_table_size: int = 19
) -> HashGridLayout:
    """Levels whose resolution grows geometrically.

    Level l has :math:`s = 2^{l \\log_2 b} N_0 - 1` cells per unit (in float32, as tiny-cuda-nn computes it),
    ``ceil(s) + 1`` vertices per axis and as many entries as vertices, rounded up to a multiple of eight, but no more
    than ``2 ** log2_table_size``.

    Args:
        num_levels: L.
        base_resolution: N_0.
        per_level_scale: growth b from level to level.
        log2_table_size: logarithm of the entries of a hashed level.
    """
    offsets, resolutions, scales = [0], [], []
    growth = _single(math.log2(per_level_scale))
    for level in range(num_levels):
        scale = _single(_single(_single(2.0 ** _single(level * growth)) * base_resolution) - 1)
        resolution = math.ceil(scale) + 1
        entries = min((resolution**3 + 7) // 8 * 8, 2**log2_table_size)
        offsets.append(offsets[-1] + entries)
        resolutions.append(resolution)
        scales.append(scale)
    return HashGridLayout(tuple(offsets), tuple(resolutions), tuple(scales))


def _single(value: float) -> float:
    return round_to_dtype(value, torch.float32)


def hash_grid(positions: Tensor, params: Tensor, layout: HashGridLayout) -> Tensor:
    r"""Features of points, interpolated trilinearly in every level of a hashed grid.

    A level whose vertices do not fit its table finds them by the hash
    :math:`x \oplus 2654435761\,y \oplus 805459861\,z` in 32 bits; vertices that share an entry share its features.
    Differentiable by positions and parameters, also twice. On CUDA gradients of the parameters are summed by atomic
    additions, whose order (so, the last digits) differs between runs.

    Args:
        positions: of shape :math:`(N, 3)`, in [0, 1].
        params: features of all entries, of shape :math:`(E, F)`; the flat vector of tiny-cuda-nn in rows of F.
        layout: of the E entries.

    Returns:
        Tensor of shape :math:`(N, L F)`, level by level.

    Raises:
        ValueError: if ``params`` does not have a row per entry.
    """
    if params.dim() != 2 or len(params) != layout.num_entries:
        raise ValueError(f"params must have the shape ({layout.num_entries}, F), got {tuple(params.shape)}")
    if len(layout.resolutions) <= _MOST_LEVELS and native("hash_grid", positions, params):
        return torch.ops.perception.hash_grid(positions, params, *layout)
    return _encode(positions, params, layout)


def _encode(positions: Tensor, params: Tensor, layout: HashGridLayout) -> Tensor:
    """The reference of :func:`hash_grid`."""
    features = [
        (params[entry] * weight[..., None].to(params.dtype)).sum(1)
        for entry, weight in _corners(positions.to(params.dtype), layout)
    ]
    return torch.cat(features, 1) if features else params.new_zeros(len(positions), 0)


def _corners(positions: Tensor, layout: HashGridLayout) -> Iterator[tuple[Tensor, Tensor]]:
    """Entries (N, 8) and weights (N, 8) of each level."""
    up = torch.tensor([[c >> 2, c >> 1 & 1, c & 1] for c in range(8)], device=positions.device)
    for level, (resolution, scale) in enumerate(zip(layout.resolutions, layout.scales)):
        place = positions * scale + 0.5
        lower = place.detach().floor()
        part = place - lower
        x, y, z = ((lower.long()[:, None] + up) & _UINT32).unbind(-1)  # (N, 8) each
        size = layout.offsets[level + 1] - layout.offsets[level]
        if resolution**3 <= size:
            index = (x + y * resolution + z * resolution**2) & _UINT32
        else:
            index = x ^ (y * _PRIMES[1] & _UINT32) ^ (z * _PRIMES[2] & _UINT32)
        weight = torch.where(up == 1, part[:, None], 1 - part[:, None]).prod(-1)
        yield layout.offsets[level] + index % size, weight


def _remember(ctx, inputs, output):
    positions, params, *ctx.layout = inputs
    ctx.save_for_backward(positions, params)


def _derivative(ctx, grad):
    positions, params = ctx.saved_tensors
    to_positions, to_params = ctx.needs_input_grad[:2]
    grads = torch.ops.perception.hash_grid_backward(grad, positions, params, *ctx.layout, to_positions, to_params)
    return grads[0].to(positions.dtype) if to_positions else None, grads[1] if to_params else None, *[None] * 3


@native_kernel(
    "hash_grid(Tensor positions, Tensor params, int[] offsets, int[] resolutions, float[] scales) -> Tensor",
    types=FULL,
    setup_context=_remember,
    backward=_derivative,
)
def _fake(positions, params, offsets, resolutions, scales):
    return params.new_empty(positions.shape[0], len(resolutions) * params.shape[1])


def _remember_for_second(ctx, inputs, output):
    grad, positions, params, *rest = inputs
    ctx.layout, ctx.wanted = rest[:3], rest[3:]
    ctx.save_for_backward(grad, positions, params)


def _second_derivative(ctx, grad_positions, grad_params):
    """Second derivatives (of a field's normals, say) come from the reference: they are rarely needed."""
    layout = HashGridLayout(*map(tuple, ctx.layout))
    with torch.enable_grad():
        grad, positions, params = (x.detach().requires_grad_() for x in ctx.saved_tensors)
        first = torch.autograd.grad(_encode(positions, params, layout), (positions, params), grad, create_graph=True)
        pairs = zip(first, (grad_positions, grad_params), ctx.wanted)
        terms = [(value, pull) for value, pull, wanted in pairs if wanted and value.requires_grad]
        second: tuple[Tensor | None, ...] = (None, None, None)
        if terms:
            values, pulls = zip(*terms)
            second = torch.autograd.grad(values, (grad, positions, params), pulls, allow_unused=True)
    return *second, *[None] * 5


@native_kernel(
    "hash_grid_backward(Tensor grad, Tensor positions, Tensor params, int[] offsets, int[] resolutions, "
    "float[] scales, bool to_positions, bool to_params) -> (Tensor, Tensor)",
    setup_context=_remember_for_second,
    backward=_second_derivative,
)
def _fake_backward(grad, positions, params, offsets, resolutions, scales, to_positions, to_params):
    return (
        params.new_empty(positions.shape[0] if to_positions else 0, 3),
        params.new_empty(params.shape[0] if to_params else 0, params.shape[1]),
    )
