"""Pooling of regions, and attention that samples feature maps."""

import torch
from torch import Tensor

from perception.ops import active_rotated_filter as _active_rotated_filter
from perception.ops import deform_roi_pool as _deform_roi_pool
from perception.ops import ms_deform_attn as _ms_deform_attn
from perception.ops import roi_align as _roi_align
from perception.ops import roi_align_rotated as _roi_align_rotated
from perception.ops import roi_pool as _roi_pool
from perception.ops._mmcv._common import kernel, vjp

__all__ = [
    "active_rotated_filter_backward",
    "active_rotated_filter_forward",
    "deform_roi_pool_backward",
    "deform_roi_pool_forward",
    "ms_deform_attn_backward",
    "ms_deform_attn_forward",
    "roi_align_backward",
    "roi_align_forward",
    "roi_align_rotated_backward",
    "roi_align_rotated_forward",
    "roi_pool_backward",
    "roi_pool_forward",
]

_MAX_POOLING = 0


@kernel
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    options = (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned
    if pool_mode == _MAX_POOLING:
        pooled, y, x = _roi_align.roi_max_align(input, rois, *options)
        output.copy_(pooled)
        argmax_y.copy_(y)
        argmax_x.copy_(x)
    else:
        output.copy_(_roi_align.roi_align(input, rois, *options))


@kernel
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    shape = grad_input.shape
    if pool_mode == _MAX_POOLING:
        grad_input.add_(_roi_align.roi_max_align_backward(grad_output, rois, argmax_y, argmax_x, shape))
    else:
        grad_input.add_(_roi_align.roi_align_backward(grad_output, rois, shape, spatial_scale, sampling_ratio, aligned))


@kernel
def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    pooled, place = _roi_pool.roi_pool(input, rois, (pooled_height, pooled_width), spatial_scale)
    output.copy_(pooled)
    argmax.copy_(place)


@kernel
def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    width = grad_input.shape[3]
    channel = torch.arange(grad_input.shape[1], device=argmax.device)[:, None, None]
    image = rois[:, 0].long()[:, None, None, None]
    found = argmax >= 0
    place = argmax.long().clamp(min=0)
    where = (image, channel, place // width, place % width)
    grad_input.index_put_(where, torch.where(found, grad_output, 0), accumulate=True)


@kernel
def roi_align_rotated_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> None:
    size = (pooled_height, pooled_width)
    output.copy_(
        _roi_align_rotated.roi_align_rotated(input, rois, size, spatial_scale, sampling_ratio, aligned, clockwise)
    )


@kernel
def roi_align_rotated_backward(
    grad_output: Tensor,
    rois: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> None:
    def pool(features: Tensor) -> Tensor:
        size = (pooled_height, pooled_width)
        return _roi_align_rotated.roi_align_rotated(
            features, rois, size, spatial_scale, sampling_ratio, aligned, clockwise
        )

    # The operator is linear in the features, so their values do not matter.
    grad_input.add_(vjp(pool, [torch.zeros_like(grad_input)], grad_output)[0])


@kernel
def active_rotated_filter_forward(input: Tensor, indices: Tensor, output: Tensor) -> None:
    output.copy_(_active_rotated_filter.active_rotated_filter(input, indices))


@kernel
def active_rotated_filter_backward(grad_out: Tensor, indices: Tensor, grad_in: Tensor) -> None:
    def rotate(weight: Tensor) -> Tensor:
        return _active_rotated_filter.active_rotated_filter(weight, indices)

    grad_in.copy_(vjp(rotate, [torch.zeros_like(grad_in)], grad_out)[0])


@kernel
def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    return _ms_deform_attn.multi_scale_deformable_attention(
        value, value_spatial_shapes, sampling_locations, attention_weights
    )


@kernel
def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    def attend(values: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return _ms_deform_attn.multi_scale_deformable_attention(values, value_spatial_shapes, locations, weights)

    gradients = vjp(attend, [value, sampling_locations, attention_weights], grad_output)
    for buffer, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients):
        buffer.copy_(gradient)


@kernel
def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    options = (pooled_height, pooled_width), spatial_scale, sampling_ratio, gamma
    output.copy_(_deform_roi_pool.deform_roi_pool(input, rois, offset if offset.numel() else None, *options))


@kernel
def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    options = (pooled_height, pooled_width), spatial_scale, sampling_ratio, gamma

    def pool(features: Tensor, *offsets: Tensor) -> Tensor:
        return _deform_roi_pool.deform_roi_pool(features, rois, *(offsets or (None,)), *options)

    gradients = vjp(pool, [input, offset] if offset.numel() else [input], grad_output)
    for buffer, gradient in zip((grad_input, grad_offset), gradients):
        buffer.copy_(gradient)
