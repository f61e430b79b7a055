"""Multi-scale deformable attention: the sampling step of Deformable DETR."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.ops._dtype import as_float, zeros_in_graph
from perception.ops.backend import native
from perception.ops.registration import FULL_AND_HALF, native_kernel, no_second_derivative

__all__ = ["multi_scale_deformable_attention"]

_MOST_LEVELS = 16  # of the native kernel


def multi_scale_deformable_attention(
    value: Tensor,
    spatial_shapes: Tensor | Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    r"""Weighted sum of values sampled bilinearly at given places of several feature maps.

    For query :math:`q` and head :math:`m` the result is
    :math:`\sum_{l,p} A_{mlqp}\, V_{ml}(\phi_l(\hat p_{mlqp}))` (Deformable DETR, arXiv:2010.04159, eq. 3).
    A location (0, 0) is the outer corner of the first pixel and (1, 1) that of the last one; what lies outside a map
    counts as zero. Half-precision values are sampled in float32, because a normalised location in half precision
    cannot tell neighbouring pixels of a large map apart. On CUDA the gradient of the values is summed by atomic
    additions, whose order (so, the last digits) differs between runs.

    Args:
        value: projected features of all levels, flattened row by row and joined, of shape :math:`(B, S, M, D)` for
            M heads, with :math:`S = \sum_l H_l W_l`.
        spatial_shapes: (height, width) of each level, an integer tensor of shape :math:`(L, 2)` or a sequence of
            pairs. A sequence spares the transfer from the device that a CUDA tensor costs.
        sampling_locations: (x, y) normalised to the level, of shape :math:`(B, Q, M, L, P, 2)`.
        attention_weights: of shape :math:`(B, Q, M, L, P)`.

    Returns:
        Tensor of shape :math:`(B, Q, M D)` and of the type of ``value``.

    Raises:
        ValueError: if the levels do not add up to the length of ``value``.
    """
    shapes = spatial_shapes.tolist() if isinstance(spatial_shapes, Tensor) else [tuple(s) for s in spatial_shapes]
    batch, length, heads, dim = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    sizes = [height * width for height, width in shapes]
    if sum(sizes) != length:
        raise ValueError(f"the levels {shapes} hold {sum(sizes)} positions, but value has {length}")

    if len(shapes) <= _MOST_LEVELS and native("ms_deform_attn", value, sampling_locations, attention_weights):
        flat = [size for shape in shapes for size in shape]
        return torch.ops.perception.ms_deform_attn(value, flat, sampling_locations, attention_weights)
    # One image per (batch, head), so that grid_sample serves all heads of a level at once.
    maps = as_float(value).permute(0, 2, 3, 1).reshape(batch * heads, dim, length)
    grid = (2 * sampling_locations.to(maps.dtype) - 1).transpose(1, 2).flatten(0, 1)  # (B M) Q L P 2
    weights = attention_weights.to(maps.dtype).transpose(1, 2).flatten(0, 1)  # (B M) Q L P

    output = zeros_in_graph(maps, batch * heads, dim, queries)
    for level, ((height, width), level_maps) in enumerate(zip(shapes, maps.split(sizes, dim=2))):
        if height * width == 0 or queries * points == 0:
            output = output + grid.flatten()[:0].sum() + weights.flatten()[:0].sum()  # stay part of the graph
            continue
        sampled = F.grid_sample(
            level_maps.reshape(batch * heads, dim, height, width),
            grid[:, :, level],
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )  # (B M) D Q P
        output = output + (sampled * weights[:, None, :, level]).sum(-1)
    return output.reshape(batch, heads * dim, queries).transpose(1, 2).to(value.dtype)


def _remember(ctx, inputs, output):
    value, ctx.spatial_shapes, locations, weights = inputs
    ctx.save_for_backward(value, locations, weights)


def _derivative(ctx, grad):
    value, locations, weights = ctx.saved_tensors
    grads = torch.ops.perception.ms_deform_attn_backward(grad, value, ctx.spatial_shapes, locations, weights)
    return grads[0], None, grads[1], grads[2]


@native_kernel(
    "ms_deform_attn(Tensor value, int[] spatial_shapes, Tensor sampling_locations, Tensor attention_weights) -> Tensor",
    types=FULL_AND_HALF,
    mixed_types=True,
    setup_context=_remember,
    backward=_derivative,
)
def _fake(value, spatial_shapes, sampling_locations, attention_weights):
    return value.new_empty(value.shape[0], sampling_locations.shape[1], value.shape[2] * value.shape[3])


@native_kernel(
    "ms_deform_attn_backward(Tensor grad, Tensor value, int[] spatial_shapes, Tensor sampling_locations, "
    "Tensor attention_weights) -> (Tensor, Tensor, Tensor)",
    backward=no_second_derivative("ms_deform_attn"),
)
def _fake_backward(grad, value, spatial_shapes, sampling_locations, attention_weights):
    return tuple(x.new_empty(x.shape) for x in (value, sampling_locations, attention_weights))
