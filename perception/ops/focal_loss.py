"""Focal losses (Lin et al., arXiv:1708.02002) with explicit gradients."""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from perception.ops._dtype import as_float

__all__ = ["sigmoid_focal_loss", "softmax_focal_loss"]

# Probabilities are bounded by the smallest normal float32 before the logarithm, whatever the precision, as in mmcv.
_SMALLEST = torch.finfo(torch.float32).tiny


def sigmoid_focal_loss(
    logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: float = 0.25, class_weight: Tensor | None = None
) -> Tensor:
    r"""Element-wise binary focal loss against class indices.

    For class c and :math:`p = \sigma(x)`: :math:`-\alpha (1 - p)^\gamma \log p` where c is the target, else
    :math:`-(1 - \alpha) p^\gamma \log(1 - p)`.

    In float32, :math:`1 - p` is exactly zero for logits beyond about 17, where its logarithm is bounded by that of the
    smallest float32. The gradient is the analytical one and does not vanish there.

    Args:
        logits: of shape :math:`(N, C)`.
        target: class indices, int64 of shape :math:`(N,)`; an index outside [0, C) means background.
        gamma: focusing exponent.
        alpha: weight of the positive class.
        class_weight: factor for all losses of a sample by its target class, of shape :math:`(C,)`; background has 1.

    Returns:
        Loss of shape :math:`(N, C)`.
    """
    return _SigmoidFocalLoss.apply(logits, target, gamma, alpha, class_weight)


def softmax_focal_loss(
    logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: float = 0.25, class_weight: Tensor | None = None
) -> Tensor:
    r"""Focal loss of a softmax: :math:`-\alpha (1 - p_t)^\gamma \log p_t`.

    Args:
        logits: of shape :math:`(N, C)`.
        target: class indices, int64 of shape :math:`(N,)`; a negative index gives zero loss.
        gamma: focusing exponent.
        alpha: constant factor.
        class_weight: factor by target class, of shape :math:`(C,)`.

    Returns:
        Loss of shape :math:`(N,)`.
    """
    return _SoftmaxFocalLoss.apply(logits, target, gamma, alpha, class_weight)


class _SigmoidFocalLoss(Function):
    @staticmethod
    def forward(ctx, logits, target, gamma, alpha, class_weight):
        ctx.save_for_backward(logits, target, class_weight)
        ctx.options = gamma, alpha
        return sigmoid_focal_loss_forward(logits, target, gamma, alpha, class_weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        logits, target, class_weight = ctx.saved_tensors
        return grad * sigmoid_focal_loss_slope(logits, target, *ctx.options, class_weight), None, None, None, None


class _SoftmaxFocalLoss(Function):
    @staticmethod
    def forward(ctx, logits, target, gamma, alpha, class_weight):
        probability = as_float(logits).softmax(1)
        ctx.save_for_backward(probability, target, class_weight)
        ctx.options = gamma, alpha
        return softmax_focal_loss_forward(probability, target, gamma, alpha, class_weight).to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        probability, target, class_weight = ctx.saved_tensors
        slope = softmax_focal_loss_slope(probability, target, *ctx.options, class_weight)
        return (grad[:, None] * slope).to(grad.dtype), None, None, None, None


def sigmoid_focal_loss_forward(
    logits: Tensor, target: Tensor, gamma: float, alpha: float, class_weight: Tensor | None
) -> Tensor:
    """Values of :func:`sigmoid_focal_loss`, without a graph."""
    p = _sigmoid(logits)
    positive = -alpha * (1 - p) ** gamma * _log(p)
    negative = -(1 - alpha) * p**gamma * _log(1 - p)
    return _select(positive, negative, target, class_weight).to(logits.dtype)


def sigmoid_focal_loss_slope(
    logits: Tensor, target: Tensor, gamma: float, alpha: float, class_weight: Tensor | None
) -> Tensor:
    """Derivative of each loss of :func:`sigmoid_focal_loss` by its logit."""
    p = _sigmoid(logits)
    positive = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * _log(p))
    negative = -(1 - alpha) * p**gamma * (gamma * (1 - p) * _log(1 - p) - p)
    return _select(positive, negative, target, class_weight).to(logits.dtype)


def softmax_focal_loss_forward(
    probability: Tensor, target: Tensor, gamma: float, alpha: float, class_weight: Tensor | None
) -> Tensor:
    """Values of :func:`softmax_focal_loss` from the softmax, without a graph."""
    p = as_float(probability).gather(1, target.clamp(min=0)[:, None])[:, 0]
    loss = -alpha * (1 - p) ** gamma * _log(p)
    return _weigh(loss.masked_fill(target < 0, 0), target, class_weight).to(probability.dtype)


def softmax_focal_loss_slope(
    probability: Tensor, target: Tensor, gamma: float, alpha: float, class_weight: Tensor | None
) -> Tensor:
    """Derivative of each loss of :func:`softmax_focal_loss` by the sample's logits, of shape (N, C)."""
    probability = as_float(probability)
    label = target.clamp(min=0)[:, None]
    p = probability.gather(1, label)[:, 0]
    # By the log-probability of the target class; the softmax's own derivative follows below.
    slope = alpha * (-((1 - p) ** gamma) + gamma * (1 - p) ** (gamma - 1) * p * _log(p))
    slope = _weigh(slope.masked_fill(target < 0, 0), target, class_weight)
    one_hot = torch.zeros_like(probability).scatter(1, label, 1)
    return slope[:, None] * (one_hot - probability)


def _sigmoid(logits: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-as_float(logits)))


def _log(p: Tensor) -> Tensor:
    return p.clamp(min=_SMALLEST).log()


def _select(positive: Tensor, negative: Tensor, target: Tensor, class_weight: Tensor | None) -> Tensor:
    is_target = target[:, None] == torch.arange(positive.shape[1], device=target.device)
    return _weigh(torch.where(is_target, positive, negative), target, class_weight)


def _weigh(loss: Tensor, target: Tensor, class_weight: Tensor | None) -> Tensor:
    if class_weight is None:
        return loss
    classes = len(class_weight)
    factor = class_weight.to(loss.dtype)[target.clamp(0, classes - 1)]
    factor = torch.where((target >= 0) & (target < classes), factor, 1)
    return loss * factor.reshape(-1, *[1] * (loss.dim() - 1))
