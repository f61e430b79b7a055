"""Adam for voxel grids: skips entries without a gradient, or scales the step per voxel (DirectVoxGO)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

DENSE_SHARE = 0.5  # of touched rows above which gathering them costs more than updating all


class MaskedAdam(torch.optim.Optimizer):
    """Adam as DirectVoxGO applies it to grids.

    ``p -= lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)``: eps is added to the *uncorrected* root, unlike in
    :class:`torch.optim.Adam`.

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas, eps: as in Adam.
        skip_zero_grad: leave parameter and moments of an entry alone when its gradient is exactly 0. ``t`` counts all
            steps.

    With :meth:`set_pervoxel_lr` the step of one parameter is scaled per entry; nothing is skipped in it then.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        skip_zero_grad: bool = False,
    ):
        if lr < 0 or eps < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"MaskedAdam needs lr, eps >= 0 and betas in [0, 1), got {lr}, {eps}, {betas}")
        super().__init__(params, dict(lr=lr, betas=tuple(betas), eps=eps, skip_zero_grad=skip_zero_grad))

    def set_pervoxel_lr(self, parameter: Tensor, count: Tensor) -> None:
        """Scale the steps of ``parameter`` by ``count / count.max()``, for instance the number of views that see a
        voxel.

        The scale is part of the state, so a checkpoint keeps it.

        Raises:
            ValueError: ``count`` has another shape, or no positive entry.
        """
        if count.shape != parameter.shape:
            raise ValueError(f"counts {tuple(count.shape)} must have the parameter's shape {tuple(parameter.shape)}")
        if not bool((count > 0).any()):
            raise ValueError("no voxel is seen by any view: all learning rates would be 0")
        count = count.to(parameter)
        self._state_of(parameter)["per_voxel_lr"] = count / count.max()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _state_of(self, parameter: Tensor) -> dict:
        state = self.state[parameter]
        if "step" not in state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state

    def _update(self, parameter: Tensor, group: dict) -> None:
        state = self._state_of(parameter)
        state["step"] += 1
        step, (beta1, beta2) = state["step"].item(), group["betas"]
        step_size = group["lr"] * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
        for name in ("exp_avg", "exp_avg_sq"):
            # A checkpoint may have been written with another memory layout.
            state[name] = _laid_out_like(state[name], parameter)
        tensors = (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
        if "per_voxel_lr" in state:
            _adam(*tensors, step_size * state["per_voxel_lr"], group)
        elif group["skip_zero_grad"]:
            _adam_where_gradient(*tensors, step_size, group)
        else:
            _adam(*tensors, step_size, group)


def _adam(
    parameter: Tensor, grad: Tensor, mean: Tensor, square: Tensor, step_size: float | Tensor, group: dict
) -> None:
    beta1, beta2 = group["betas"]
    mean.mul_(beta1).add_(grad, alpha=1 - beta1)
    square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    parameter.sub_(mean / square.sqrt().add_(group["eps"]) * step_size)


def _adam_where_gradient(
    parameter: Tensor, grad: Tensor, mean: Tensor, square: Tensor, step_size: float, group: dict
) -> None:
    """Gathers the rows (voxels) that have a gradient: a batch of rays touches few of them."""
    grad = _table(_laid_out_like(grad, parameter))  # (rows, C)
    touched = grad.any(1).nonzero()[:, 0]
    every = len(touched) > DENSE_SHARE * len(grad)
    tables = [_table(tensor) for tensor in (parameter, mean, square)]
    old = tables if every else [table[touched] for table in tables]
    grad = grad if every else grad[touched]
    new = [rows.clone() for rows in old]
    _adam(new[0], grad, new[1], new[2], step_size, group)
    for table, before, after in zip(tables, old, new):
        rows = torch.where(grad != 0, after, before)
        if every:
            table.copy_(rows)
        else:
            table[touched] = rows


def _laid_out_like(tensor: Tensor, like: Tensor) -> Tensor:
    """``tensor`` with the memory layout of ``like``: itself where it has it already, else a copy."""
    return tensor.contiguous(memory_format=_memory_format(like))


def _memory_format(tensor: Tensor) -> torch.memory_format:
    if tensor.dim() == 5 and tensor.is_contiguous(memory_format=torch.channels_last_3d):
        return torch.channels_last_3d
    return torch.contiguous_format


def _table(tensor: Tensor) -> Tensor:
    """A view (rows, C) of voxels of a channels-last grid, of single entries (numel, 1) otherwise."""
    if _memory_format(tensor) is torch.channels_last_3d:
        return tensor.permute(0, 2, 3, 4, 1).view(-1, tensor.shape[1])
    return tensor.view(-1, 1)
