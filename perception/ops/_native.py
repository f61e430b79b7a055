"""What :mod:`torch` must know of the native operators besides their kernels: shapes of results, and derivatives."""

from __future__ import annotations

import torch
from torch import Tensor


def register(namespace: str = "perception") -> None:
    """Registers fake kernels and autograd formulas of a library that has just been loaded.

    Args:
        namespace: of the operators; the tests load the CUDA kernels, compiled for the host, under another one.
    """
    for name, function in _FAKES.items():
        torch.library.register_fake(f"{namespace}::{name}")(function)
    ops = getattr(torch.ops, namespace)
    for name, (setup, formula) in _derivatives(ops).items():
        torch.library.register_autograd(f"{namespace}::{name}", formula, setup_context=setup)
    for name in _ONCE_DIFFERENTIABLE:
        torch.library.register_autograd(f"{namespace}::{name}", _refuse(name))


# Results of the right shape and type and no content.


def _box_iou_rotated(boxes1, boxes2, iof, aligned, clockwise):
    return boxes1.new_empty(boxes1.shape[0]) if aligned else boxes1.new_empty(boxes1.shape[0], boxes2.shape[0])


def _nms_rotated(boxes, order, labels, iou_threshold, clockwise):
    kept = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(kept, dtype=torch.long)


def _roi_align_rotated(features, rois, rows, columns, spatial_scale, sampling_ratio, aligned, clockwise):
    return features.new_empty(rois.shape[0], features.shape[1], rows, columns)


def _roi_align_rotated_backward(grad, rois, batch, height, width, spatial_scale, sampling_ratio, aligned, clockwise):
    return grad.new_empty(batch, grad.shape[1], height, width)


def _carafe(features, masks, kernel_size, groups, scale_factor):
    batch, channels, height, width = features.shape
    return features.new_empty(batch, channels, height * scale_factor, width * scale_factor)


def _carafe_backward(grad, features, masks, kernel_size, groups, scale_factor):
    return features.new_empty(features.shape), masks.new_empty(masks.shape)


def _ms_deform_attn(value, spatial_shapes, sampling_locations, attention_weights):
    return value.new_empty(value.shape[0], sampling_locations.shape[1], value.shape[2] * value.shape[3])


def _ms_deform_attn_backward(grad, value, spatial_shapes, sampling_locations, attention_weights):
    return tuple(x.new_empty(x.shape) for x in (value, sampling_locations, attention_weights))


def _furthest_point_sample(points, num_points, skip_near_origin):
    return points.new_empty(points.shape[0], num_points, dtype=torch.long)


def _ball_query(points, centres, min_square, max_square, num_samples):
    return points.new_empty(*centres.shape[:2], num_samples, dtype=torch.long)


def _knn(points, centres, k):
    shape = (*centres.shape[:2], k)
    return points.new_empty(shape), points.new_empty(shape, dtype=torch.long)


def _trilinear_gather(table, position, shape):
    return table.new_empty(position.shape[0], table.shape[1])


def _trilinear_scatter(values, position, shape):
    return values.new_empty(shape[0] * shape[1] * shape[2], values.shape[1])


def _sample_rays(start, unit, count, xyz_min, xyz_max, mask, mask_scale, mask_shift, stepdist):
    number = torch.library.get_ctx().new_dynamic_size()
    ids = (start.new_empty(number, dtype=torch.long) for _ in range(2))
    return start.new_empty(number, 3), *ids


def _alphas_to_weights(alpha, offsets, min_transmittance):
    return torch.empty_like(alpha), torch.empty_like(alpha), alpha.new_empty(offsets.shape[0] - 1)


def _alphas_to_weights_backward(
    grad_weights, grad_last, alpha, weights, transmittance, last, offsets, min_transmittance
):
    return torch.empty_like(alpha)


def _in_place(*args):
    return None


def _hash_grid(positions, params, offsets, resolutions, scales):
    return params.new_empty(positions.shape[0], len(resolutions) * params.shape[1])


def _hash_grid_backward(grad, positions, params, offsets, resolutions, scales, to_positions, to_params):
    return (
        params.new_empty(positions.shape[0] if to_positions else 0, 3),
        params.new_empty(params.shape[0] if to_params else 0, params.shape[1]),
    )


_FAKES = {
    "box_iou_rotated": _box_iou_rotated,
    "nms_rotated": _nms_rotated,
    "roi_align_rotated": _roi_align_rotated,
    "roi_align_rotated_backward": _roi_align_rotated_backward,
    "carafe": _carafe,
    "carafe_backward": _carafe_backward,
    "ms_deform_attn": _ms_deform_attn,
    "ms_deform_attn_backward": _ms_deform_attn_backward,
    "furthest_point_sample": _furthest_point_sample,
    "ball_query": _ball_query,
    "knn": _knn,
    "trilinear_gather": _trilinear_gather,
    "trilinear_scatter": _trilinear_scatter,
    "sample_rays": _sample_rays,
    "alphas_to_weights": _alphas_to_weights,
    "alphas_to_weights_backward": _alphas_to_weights_backward,
    "total_variation_add_grad_": _in_place,
    "masked_adam_": _in_place,
    "masked_rmsprop_": _in_place,
    "hash_grid": _hash_grid,
    "hash_grid_backward": _hash_grid_backward,
}

_ONCE_DIFFERENTIABLE = (
    "roi_align_rotated_backward",
    "carafe_backward",
    "ms_deform_attn_backward",
    "alphas_to_weights_backward",
)


def _refuse(name: str):
    def formula(ctx, *grads):
        raise NotImplementedError(
            f"{name.removesuffix('_backward')} has no second derivative in its native form: "
            "set PERCEPTION_OPS=reference"
        )

    return formula


def _derivatives(ops) -> dict[str, tuple]:
    """(setup_context, backward) of each differentiable operator, in terms of the operators of one namespace."""

    def roi_align_rotated(ctx, grad):
        rois, shape, options = ctx.saved_tensors[0], ctx.shape, ctx.options
        return ops.roi_align_rotated_backward(grad, rois, shape[0], *shape[2:], *options), *[None] * 7

    def setup_roi_align_rotated(ctx, inputs, output):
        features, rois, _, _, *ctx.options = inputs
        ctx.shape = features.shape
        ctx.save_for_backward(rois)

    def carafe(ctx, grad):
        return *ops.carafe_backward(grad, *ctx.saved_tensors, *ctx.options), None, None, None

    def setup_carafe(ctx, inputs, output):
        features, masks, *ctx.options = inputs
        ctx.save_for_backward(features, masks)

    def ms_deform_attn(ctx, grad):
        value, locations, weights = ctx.saved_tensors
        grads = ops.ms_deform_attn_backward(grad, value, ctx.spatial_shapes, locations, weights)
        return grads[0], None, grads[1], grads[2]

    def setup_ms_deform_attn(ctx, inputs, output):
        value, ctx.spatial_shapes, locations, weights = inputs
        ctx.save_for_backward(value, locations, weights)

    def trilinear_gather(ctx, grad):
        return ops.trilinear_scatter(grad, ctx.saved_tensors[0], ctx.shape), None, None

    def trilinear_scatter(ctx, grad):
        return ops.trilinear_gather(grad, ctx.saved_tensors[0], ctx.shape), None, None

    def setup_trilinear(ctx, inputs, output):
        _, position, ctx.shape = inputs
        ctx.save_for_backward(position)

    def alphas_to_weights(ctx, grad_weights, _, grad_last):
        return ops.alphas_to_weights_backward(grad_weights, grad_last, *ctx.saved_tensors, ctx.bound), None, None

    def setup_alphas_to_weights(ctx, inputs, output):
        alpha, offsets, ctx.bound = inputs
        ctx.save_for_backward(alpha, *output, offsets)

    def hash_grid(ctx, grad):
        positions, params = ctx.saved_tensors
        to_positions, to_params = ctx.needs_input_grad[:2]
        grads = ops.hash_grid_backward(grad, positions, params, *ctx.layout, to_positions, to_params)
        return (
            grads[0].to(positions.dtype) if to_positions else None,
            grads[1] if to_params else None,
            *[None] * 3,
        )

    def setup_hash_grid(ctx, inputs, output):
        positions, params, *ctx.layout = inputs
        ctx.save_for_backward(positions, params)

    def hash_grid_backward(ctx, grad_positions, grad_params):
        """Second derivatives (of a field's normals, say) come from the reference: they are rarely needed."""
        from perception.ops.hash_grid import HashGridLayout, encode

        layout = HashGridLayout(*map(tuple, ctx.layout))
        with torch.enable_grad():
            grad, positions, params = (x.detach().requires_grad_() for x in ctx.saved_tensors)
            first = torch.autograd.grad(encode(positions, params, layout), (positions, params), grad, create_graph=True)
            pairs = zip(first, (grad_positions, grad_params), ctx.wanted)
            terms = [(value, pull) for value, pull, wanted in pairs if wanted and value.requires_grad]
            second: tuple[Tensor | None, ...] = (None, None, None)
            if terms:
                values, pulls = zip(*terms)
                second = torch.autograd.grad(values, (grad, positions, params), pulls, allow_unused=True)
        return *second, *[None] * 5

    def setup_hash_grid_backward(ctx, inputs, output):
        grad, positions, params, *rest = inputs
        ctx.layout, ctx.wanted = rest[:3], rest[3:]
        ctx.save_for_backward(grad, positions, params)

    return {
        "roi_align_rotated": (setup_roi_align_rotated, roi_align_rotated),
        "carafe": (setup_carafe, carafe),
        "ms_deform_attn": (setup_ms_deform_attn, ms_deform_attn),
        "trilinear_gather": (setup_trilinear, trilinear_gather),
        "trilinear_scatter": (setup_trilinear, trilinear_scatter),
        "alphas_to_weights": (setup_alphas_to_weights, alphas_to_weights),
        "hash_grid": (setup_hash_grid, hash_grid),
        "hash_grid_backward": (setup_hash_grid_backward, hash_grid_backward),
    }
