"""Focal losses. For the one of a softmax, mmcv passes the probabilities as ``input``."""

from torch import Tensor

from perception.ops import focal_loss as _focal_loss
from perception.ops._mmcv._common import kernel

__all__ = [
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
    "softmax_focal_loss_backward",
    "softmax_focal_loss_forward",
]


@kernel
def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    output.copy_(_focal_loss.sigmoid_focal_loss_forward(input, target, gamma, alpha, _or_none(weight)))


@kernel
def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    grad_input.copy_(_focal_loss.sigmoid_focal_loss_slope(input, target, gamma, alpha, _or_none(weight)))


@kernel
def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    output.copy_(_focal_loss.softmax_focal_loss_forward(input, target, gamma, alpha, _or_none(weight)))


@kernel
def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    grad_input.copy_(_focal_loss.softmax_focal_loss_slope(input, target, gamma, alpha, _or_none(weight)))


def _or_none(weight: Tensor) -> Tensor | None:
    # mmcv passes an empty tensor for "no class weights".
    return weight if weight.numel() else None
