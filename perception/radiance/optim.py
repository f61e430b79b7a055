"""Optimisers for voxel grids: Adam that skips entries without a gradient, or scales the step per voxel (DirectVoxGO),
and RMSprop of the voxels that were touched (Plenoxels)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from perception.ops.masked_adam import laid_out_like, masked_adam_
from perception.ops.masked_rmsprop import masked_rmsprop_


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
            state[name] = laid_out_like(state[name], parameter)
        scale = state.get("per_voxel_lr")
        masked_adam_(
            parameter,
            parameter.grad,
            state["exp_avg"],
            state["exp_avg_sq"],
            step_size=step_size,
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            skip_zero_grad=group["skip_zero_grad"] and scale is None,
            scale=scale,
        )


class MaskedRMSprop(torch.optim.Optimizer):
    """RMSprop of marked rows as Plenoxels has it: the first update of an entry moves it by exactly ``lr``.

    Args:
        params: parameters (V, C) or groups.
        lr: learning rate.
        beta: share of the old value in the running mean of squares, which starts at 0.
        eps: in the denominator.

    A parameter's rows to update are ``parameter.touched``, bool (V,); all of them where it has no such attribute.
    """

    def __init__(self, params: Iterable, lr: float = 1e-2, beta: float = 0.95, eps: float = 1e-8):
        if lr < 0 or eps < 0 or not 0 <= beta < 1:
            raise ValueError(f"MaskedRMSprop needs lr, eps >= 0 and beta in [0, 1), got {lr}, {eps}, {beta}")
        super().__init__(params, dict(lr=lr, beta=beta, eps=eps))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "square_avg" not in state:
                    state["square_avg"] = torch.zeros_like(parameter)
                touched = getattr(parameter, "touched", None)
                if touched is None:
                    touched = torch.ones(len(parameter), dtype=torch.bool, device=parameter.device)
                options = {name: group[name] for name in ("lr", "beta", "eps")}
                masked_rmsprop_(parameter, parameter.grad, state["square_avg"], touched, **options)
        return loss
