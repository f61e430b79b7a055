"""Feature maps: reassembly, alignment and attention."""

import torch
from torch import Tensor

from perception.ops import bezier_align as _bezier_align
from perception.ops import carafe as _carafe
from perception.ops import masked_conv as _masked_conv
from perception.ops import psa_mask as _psa_mask
from perception.ops import riroi_align_rotated as _riroi_align_rotated
from perception.ops import rotated_feature_align as _rotated_feature_align
from perception.ops._mmcv._common import kernel, vjp

__all__ = [
    "bezier_align_backward",
    "bezier_align_forward",
    "carafe_backward",
    "carafe_forward",
    "carafe_naive_backward",
    "carafe_naive_forward",
    "masked_col2im_forward",
    "masked_im2col_forward",
    "psamask_backward",
    "psamask_forward",
    "riroi_align_rotated_backward",
    "riroi_align_rotated_forward",
    "rotated_feature_align_backward",
    "rotated_feature_align_forward",
]

_PSA_DIRECTIONS = ("collect", "distribute")


@kernel
def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    rfeatures.copy_(features)  # the backward function is given this buffer instead of the features
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


@kernel
def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    carafe_naive_backward(top_grad, rfeatures, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor)


@kernel
def carafe_naive_forward(
    features: Tensor, masks: Tensor, output: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> None:
    output.copy_(_carafe.carafe(features, masks, kernel_size, group_size, scale_factor))


@kernel
def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    def reassemble(x: Tensor, weights: Tensor) -> Tensor:
        return _carafe.carafe(x, weights, kernel_size, group_size, scale_factor)

    grad_features, grad_masks = vjp(reassemble, [features, masks], top_grad)
    bottom_grad.copy_(grad_features)
    mask_grad.copy_(grad_masks)


@kernel
def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    col.copy_(_masked_conv.masked_im2col(im, mask_h_idx, mask_w_idx, (kernel_h, kernel_w), (pad_h, pad_w)))


@kernel
def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    im[0, :, mask_h_idx, mask_w_idx] = col


@kernel
def psamask_forward(
    input: Tensor,
    output: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    output.copy_(_psa_mask.psa_mask(input, _PSA_DIRECTIONS[psa_type], (h_mask, w_mask)))


@kernel
def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    def spread(masks: Tensor) -> Tensor:
        return _psa_mask.psa_mask(masks, _PSA_DIRECTIONS[psa_type], (h_mask, w_mask))

    grad_input.copy_(vjp(spread, [torch.zeros_like(grad_input)], grad_output)[0])


@kernel
def rotated_feature_align_forward(
    features: Tensor, best_bboxes: Tensor, output: Tensor, spatial_scale: float, points: int
) -> None:
    boxes = _box_per_pixel(best_bboxes, features)
    output.copy_(_rotated_feature_align.rotated_feature_align(features, boxes, spatial_scale, points))


@kernel
def rotated_feature_align_backward(
    top_grad: Tensor, best_bboxes: Tensor, bottom_grad: Tensor, spatial_scale: float, points: int
) -> None:
    boxes = _box_per_pixel(best_bboxes, bottom_grad)

    def align(features: Tensor) -> Tensor:
        return _rotated_feature_align.rotated_feature_align(features, boxes, spatial_scale, points)

    bottom_grad.copy_(vjp(align, [torch.zeros_like(bottom_grad)], top_grad)[0])


def _box_per_pixel(boxes: Tensor, features: Tensor) -> Tensor:
    # mmrotate passes them with rows and columns flattened, which the kernel does not notice.
    return boxes.reshape(features.shape[0], *features.shape[2:], 5)


@kernel
def riroi_align_rotated_forward(
    features: Tensor,
    rois: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    num_samples: int,
    num_orientations: int,
    clockwise: bool,
) -> None:
    options = (pooled_height, pooled_width), spatial_scale, num_samples, num_orientations, clockwise
    output.copy_(_riroi_align_rotated.riroi_align_rotated(features, rois, *options))


@kernel
def riroi_align_rotated_backward(
    top_grad: Tensor,
    rois: Tensor,
    bottom_grad: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    num_samples: int,
    num_orientations: int,
    clockwise: bool,
) -> None:
    def pool(features: Tensor) -> Tensor:
        options = (pooled_height, pooled_width), spatial_scale, num_samples, num_orientations, clockwise
        return _riroi_align_rotated.riroi_align_rotated(features, rois, *options)

    bottom_grad.add_(vjp(pool, [torch.zeros_like(bottom_grad)], top_grad)[0])


@kernel
def bezier_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> None:
    size = (aligned_height, aligned_width)
    output.copy_(_bezier_align.bezier_align(input, rois, size, spatial_scale, sampling_ratio, aligned))


@kernel
def bezier_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> None:
    def pool(features: Tensor) -> Tensor:
        size = (aligned_height, aligned_width)
        return _bezier_align.bezier_align(features, rois, size, spatial_scale, sampling_ratio, aligned)

    grad_input.add_(vjp(pool, [torch.zeros_like(grad_input)], grad_output)[0])
