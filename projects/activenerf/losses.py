"""The losses: likelihood of the colours under the rendered Gaussians, and what stands in for it."""

from __future__ import annotations

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from projects.activenerf.rendering import Rendering

Fallback = Literal["batch", "ray", "none"]
OFFSET = 4.0
"""Added to the likelihood so that the released code prints a positive number; it has no gradient."""
EPS = 1e-9  # added to variances


def uncertainty_losses(
    fine: Rendering, target: Tensor, *, w_reg: float, fallback: Fallback = "batch"
) -> dict[str, Tensor]:
    """The fine network's losses, to be summed.

    Args:
        fine: of N rays.
        target: (N, 3) colours.
        w_reg: weight of the mean density (the paper's lambda).
        fallback: what rays of variance 0 do, which meet nothing at all. ``"batch"``: one of them makes the whole batch
            use the squared error, without the regulariser (the released code); ``"ray"``: they alone use it;
            ``"none"``: nothing falls back, and such a ray costs its squared error / 2e-9.

    Returns:
        ``nll_sq``, ``nll_log``, ``reg`` and ``offset``, or, of a batch that falls back, ``rgb_loss``; with ``"ray"``
        all of them, each over its rays and divided by the number of all.

    Raises:
        ValueError: there is no such fallback.

    Source: equation 11 of the paper, with the squared error averaged over channels as in the released code.
    """
    if fallback not in get_args(Fallback):
        raise ValueError(f"uncert_fallback must be one of {', '.join(get_args(Fallback))}, not {fallback!r}")
    empty = fine.uncert.detach() <= 0
    if fallback == "batch" and bool(empty.any()):
        return {"rgb_loss": F.mse_loss(fine.rgb, target)}
    variance = fine.uncert + EPS  # (N,)
    error = (fine.rgb - target).square().mean(-1)
    terms = {"nll_sq": error / (2 * variance), "nll_log": 0.5 * variance.log(), "reg": w_reg * fine.sigma_mean}
    if fallback == "ray":
        some = ~empty
        losses = {name: (term[some]).sum() / len(target) for name, term in terms.items()}
        return {**losses, "offset": OFFSET * some.float().mean(), "rgb_loss": error[empty].sum() / len(target)}
    return {name: term.mean() for name, term in terms.items()} | {"offset": variance.new_tensor(OFFSET)}


def activenerf_losses(
    coarse: Rendering, fine: Rendering, target: Tensor, *, w_reg: float = 0.01, fallback: Fallback = "batch"
) -> dict[str, Tensor]:
    """:func:`uncertainty_losses`, and the squared error of the coarse network, ``rgb_loss_coarse``; to be summed."""
    losses = uncertainty_losses(fine, target, w_reg=w_reg, fallback=fallback)
    return {**losses, "rgb_loss_coarse": F.mse_loss(coarse.rgb, target)}
