"""An update by Adam that can leave entries without a gradient alone."""

from __future__ import annotations

import torch
from torch import Tensor

from perception.ops.backend import native
from perception.ops.registration import FULL, native_kernel

__all__ = ["laid_out_like", "masked_adam_"]

DENSE_SHARE = 0.5  # of touched rows above which gathering them costs more than updating all


@torch.no_grad()
def masked_adam_(
    parameter: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    step_size: float,
    beta1: float,
    beta2: float,
    eps: float,
    skip_zero_grad: bool = False,
    scale: Tensor | None = None,
) -> None:
    r"""``m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p -= step_size * m / (sqrt(v) + eps)``, in place.

    The bias corrections are part of ``step_size``: eps is added to the *uncorrected* root (DirectVoxGO,
    arXiv:2111.11215).

    Args:
        parameter: of any shape; together with the gradient and the averages in one dense memory layout.
        grad: its gradient.
        exp_avg: running mean m of gradients.
        exp_avg_sq: running mean v of their squares.
        step_size: learning rate with bias corrections.
        beta1: share of the old value in m.
        beta2: share of the old value in v.
        eps: in the denominator.
        skip_zero_grad: leave parameter and averages of an entry alone where its gradient is exactly 0.
        scale: factors of the step of each entry, of the parameter's shape.
    """
    grad = laid_out_like(grad, parameter)
    if scale is not None:
        scale = laid_out_like(scale, parameter)
    tensors = (parameter, grad, exp_avg, exp_avg_sq)
    if native("masked_adam_", *tensors, *(() if scale is None else (scale,))):
        torch.ops.perception.masked_adam_(
            parameter, grad, exp_avg, exp_avg_sq, scale, step_size, beta1, beta2, eps, skip_zero_grad
        )
        return
    options = (step_size if scale is None else step_size * scale, beta1, beta2, eps)
    if skip_zero_grad:
        _update_where_gradient(parameter, grad, exp_avg, exp_avg_sq, scale, *options)
    else:
        _update(parameter, grad, exp_avg, exp_avg_sq, *options)


def laid_out_like(tensor: Tensor, like: Tensor) -> Tensor:
    """``tensor`` with the memory layout of ``like``: itself where it has it already, else a copy."""
    if tensor.stride() == like.stride():
        return tensor
    # By strides, not by a memory format: with sides of 1 a tensor is of several formats at once.
    return torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)


def _update(
    parameter: Tensor,
    grad: Tensor,
    mean: Tensor,
    square: Tensor,
    step: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    mean.mul_(beta1).add_(grad, alpha=1 - beta1)
    square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    parameter.sub_(mean / square.sqrt().add_(eps) * step)


def _update_where_gradient(
    parameter: Tensor, grad: Tensor, mean: Tensor, square: Tensor, scale: Tensor | None, step: float | Tensor, *options
) -> None:
    """Gathers the rows (voxels) that have a gradient: a batch of rays touches few of them."""
    grad = _table(grad)  # (rows, C)
    touched = grad.any(1).nonzero()[:, 0]
    every = len(touched) > DENSE_SHARE * len(grad)
    tables = [_table(tensor) for tensor in (parameter, mean, square)]
    old = tables if every else [table[touched] for table in tables]
    grad = grad if every else grad[touched]
    if scale is not None:
        step = _table(step) if every else _table(step)[touched]
    new = [rows.clone() for rows in old]
    _update(new[0], grad, new[1], new[2], step, *options)
    for table, before, after in zip(tables, old, new):
        rows = torch.where(grad != 0, after, before)
        if every:
            table.copy_(rows)
        else:
            table[touched] = rows


def _memory_format(tensor: Tensor) -> torch.memory_format:
    if tensor.dim() == 5 and tensor.is_contiguous(memory_format=torch.channels_last_3d):
        return torch.channels_last_3d
    return torch.contiguous_format


def _table(tensor: Tensor) -> Tensor:
    """A view (rows, C) of voxels of a channels-last grid, of single entries (numel, 1) otherwise."""
    if _memory_format(tensor) is torch.channels_last_3d:
        return tensor.permute(0, 2, 3, 4, 1).view(-1, tensor.shape[1])
    return tensor.view(-1, 1)


@native_kernel(
    "masked_adam_(Tensor(a!) parameter, Tensor grad, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, Tensor? scale, "
    "float step_size, float beta1, float beta2, float eps, bool skip_zero_grad) -> ()",
    types=FULL,
)
def _fake(parameter, grad, exp_avg, exp_avg_sq, scale, step_size, beta1, beta2, eps, skip_zero_grad):
    return None
