"""Mean and variance of what rays show, and where they are sampled."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LAST_INTERVAL = 1e10
"""Length of a ray's last interval: any density there is opaque."""


class Rendering(NamedTuple):
    """N rays with S samples each."""

    rgb: Tensor  # (N, 3) mean colour, on the background
    uncert: Tensor  # (N,) variance of the colour
    acc: Tensor  # (N,) opacity
    depth: Tensor  # (N,) sum of weights times z
    disp: Tensor  # (N,) 1 / mean depth; 0 for rays that meet nothing
    sigma_mean: Tensor  # (N,) mean density of the samples
    weights: Tensor  # (N, S)
    beta2: Tensor  # (N, S) variance of the samples' colours


def volume_render(
    raw: Tensor, z_vals: Tensor, rays_d: Tensor, *, background: Tensor | float = 0.0, noise: Tensor | None = None
) -> Rendering:
    """Composite the samples of rays.

    The colours of the samples are independent Gaussians, so the pixel's mean is the sum of ``w c`` and its variance
    that of ``w^2 beta^2``. The background adds no variance.

    Args:
        raw: (N, S, 5) of :class:`~projects.activenerf.field.ActiveNeRFField`.
        z_vals: (N, S) ray parameters of the samples, ascending.
        rays_d: (N, 3) directions, of any length.
        background: colour, a number, (3,) or (N, 3), behind what is not opaque.
        noise: (N, S) added to the raw density.

    Source: section 3.2 of the paper, and the released code.
    """
    gaps = z_vals[:, 1:] - z_vals[:, :-1]
    deltas = torch.cat([gaps, torch.full_like(z_vals[:, :1], LAST_INTERVAL)], -1) * rays_d.norm(dim=-1, keepdim=True)
    sigma = F.relu(raw[..., 3] if noise is None else raw[..., 3] + noise)
    alpha = 1 - torch.exp(-sigma * deltas)
    clear = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha[:, :-1] + 1e-10], -1), -1)
    weights = alpha * clear
    acc = weights.sum(-1)
    depth = (weights * z_vals).sum(-1)
    seen = acc > 0
    mean_depth = torch.where(seen, depth, 1) / torch.where(seen, acc, 1)
    return Rendering(
        rgb=(weights[..., None] * torch.sigmoid(raw[..., :3])).sum(-2) + (1 - acc)[:, None] * background,
        uncert=(weights.square() * raw[..., 4]).sum(-1),
        acc=acc,
        depth=depth,
        disp=torch.where(seen, 1 / mean_depth.clamp(min=1e-10), 0),
        sigma_mean=sigma.mean(-1),
        weights=weights,
        beta2=raw[..., 4],
    )


class Sampling(NamedTuple):
    """Where rays are sampled."""

    coarse: int = 64
    """Samples of the coarse network, even between near and far."""
    fine: int = 128
    """Samples that are added where the coarse network has found something."""
    perturb: bool = True
    """Whether samples move at random within their intervals where there is a generator."""
    lindisp: bool = False
    """Whether coarse samples are even in disparity."""


class RenderedPair(NamedTuple):
    """What both networks make of the same rays."""

    coarse: Rendering
    fine: Rendering


Field = Callable[[Tensor, Tensor], Tensor]


def render_rays(
    coarse: Field,
    fine: Field,
    rays_o: Tensor,
    rays_d: Tensor,
    viewdirs: Tensor,
    near: Tensor,
    far: Tensor,
    sampling: Sampling,
    *,
    background: Tensor | float = 0.0,
    noise_std: float = 0.0,
    random: torch.Generator | None = None,
) -> RenderedPair:
    """Render rays with the coarse network, then with the fine one on all samples.

    Args:
        coarse, fine: points and directions (N, S, 3) to raw values (N, S, 5).
        rays_o, rays_d: (N, 3) origins and directions, of any length.
        viewdirs: (N, 3) directions of length 1 for the networks.
        near, far: (N,) ray parameters.
        sampling: numbers of samples.
        background: see :func:`volume_render`.
        noise_std: of the noise on raw densities, where there is a generator.
        random: on the CPU; without it everything is deterministic.
    """

    def composite(field: Field, z_vals: Tensor) -> Rendering:
        points = rays_o[:, None] + rays_d[:, None] * z_vals[..., None]  # (N, S, 3)
        raw = field(points, viewdirs[:, None].expand_as(points))
        noise = None
        if noise_std and random is not None:
            noise = noise_std * torch.randn(z_vals.shape, generator=random).to(z_vals)
        return volume_render(raw, z_vals, rays_d, background=background, noise=noise)

    jitter = random if sampling.perturb else None
    z_vals = even_samples(near, far, sampling.coarse, lindisp=sampling.lindisp, random=jitter)
    first = composite(coarse, z_vals)
    middles = 0.5 * (z_vals[:, 1:] + z_vals[:, :-1])
    added = sample_pdf(middles, first.weights[:, 1:-1].detach(), sampling.fine, random=jitter)
    z_vals = torch.cat([z_vals, added.detach()], -1).sort(-1).values
    return RenderedPair(first, composite(fine, z_vals))


Uniform = torch.Generator | Tensor
"""A generator on the CPU, or the numbers from 0 to 1 that it would draw."""


def even_samples(
    near: Tensor, far: Tensor, count: int, *, lindisp: bool = False, random: Uniform | None = None
) -> Tensor:
    """Ray parameters (N, count) from ``near`` to ``far`` (N,), moved at random between the middles of their neighbours
    where there is a generator, or where there are numbers (N, count)."""
    place = torch.linspace(0, 1, count, device=near.device, dtype=near.dtype)
    near, far = near[:, None], far[:, None]
    z_vals = 1 / (1 / near * (1 - place) + 1 / far * place) if lindisp else near * (1 - place) + far * place
    if random is None:
        return z_vals
    middles = 0.5 * (z_vals[:, 1:] + z_vals[:, :-1])
    upper, lower = torch.cat([middles, z_vals[:, -1:]], -1), torch.cat([z_vals[:, :1], middles], -1)
    return lower + (upper - lower) * _drawn(random, z_vals)


def _drawn(random: Uniform, like: Tensor) -> Tensor:
    numbers = random if isinstance(random, Tensor) else torch.rand(like.shape, generator=random)
    return numbers.to(like)


def sample_pdf(bins: Tensor, weights: Tensor, count: int, *, random: Uniform | None = None) -> Tensor:
    """Ray parameters (N, count) by the inverse of the distribution that weights describe.

    Args:
        bins: (N, B) ascending borders.
        weights: (N, B - 1) of the intervals between them.
        count: how many; their ranks are even from 0 to 1 where nothing is random.
        random: a generator on the CPU, or the ranks (N, count).
    """
    weights = weights + 1e-5
    pdf = weights / weights.sum(-1, keepdim=True)
    cdf = torch.cat([torch.zeros_like(pdf[:, :1]), pdf.cumsum(-1)], -1)  # (N, B)
    if random is None:
        ranks = torch.linspace(0, 1, count, device=cdf.device, dtype=cdf.dtype).expand(len(cdf), count)
    else:
        ranks = _drawn(random, cdf.new_empty(len(cdf), count))
    above = torch.searchsorted(cdf, ranks.contiguous(), right=True)
    below = (above - 1).clamp(min=0)
    above = above.clamp(max=cdf.shape[-1] - 1)
    step = cdf.gather(-1, above) - cdf.gather(-1, below)
    step = torch.where(step < 1e-5, 1, step)
    start, end = bins.gather(-1, below), bins.gather(-1, above)
    return start + (ranks - cdf.gather(-1, below)) / step * (end - start)
