"""Rendering rays from source views: samples in inverse depth, compositing without interval lengths, coarse and fine."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from projects.dn2n.aggregation import IBRNet
from projects.dn2n.features import ResUNet
from projects.dn2n.projection import gather

MIN_SEEN = 8
"""A ray counts where more samples than this are seen by more than one view."""


class Rays(NamedTuple):
    """N rays of one camera."""

    origins: Tensor  # (N, 3)
    directions: Tensor  # (N, 3) of length 1 along the camera's viewing axis, so that parameters are depths
    camera: Tensor  # (34,) the camera's vector
    near: float | Tensor  # positive depth, for all or for each (N,)
    far: float | Tensor

    def chunks(self, size: int) -> list[Rays]:
        """Parts of at most `size` rays."""
        parts = []
        for start in range(0, len(self.origins), size):
            cut = slice(start, start + size)
            near, far = (x[cut] if isinstance(x, Tensor) and x.dim() else x for x in (self.near, self.far))
            parts.append(Rays(self.origins[cut], self.directions[cut], self.camera, near, far))
        return parts


class Sources(NamedTuple):
    """Source views (V) and their features."""

    images: Tensor  # (V, 3, H, W)
    cameras: Tensor  # (V, 34)
    coarse: Tensor  # (V, C, h, w)
    fine: Tensor  # (V, C, h, w)

    def select(self, views: Tensor) -> Sources:
        """Some of the views, by their numbers (K,)."""
        return Sources(*(part[views] for part in self))


class Rendered(NamedTuple):
    """N rendered rays."""

    rgb: Tensor  # (N, 3)
    depth: Tensor  # (N,) expected depth
    accumulation: Tensor  # (N,) sum of the weights
    weights: Tensor  # (N, S)
    z: Tensor  # (N, S) depths of the samples, ascending
    mask: Tensor  # (N,) bool: enough of the ray is seen by several views
    seen: Tensor  # (N,) bool: some sample is seen by any view


class CoarseAndFine(NamedTuple):
    """Both renderings of rays; `fine` is `None` where there is no fine network."""

    coarse: Rendered
    fine: Rendered | None

    @property
    def best(self) -> Rendered:
        """The finer one."""
        return self.coarse if self.fine is None else self.fine


def sample_depths(
    near: float | Tensor,
    far: float | Tensor,
    rays: int,
    samples: int,
    *,
    inverse: bool = True,
    generator: torch.Generator | None = None,
    like: Tensor,
) -> Tensor:
    """Depths (rays, samples) between near and far, evenly spaced in inverse depth, or in depth.

    Args:
        near, far: positive depths, for all rays or each (rays,).
        rays, samples: how many.
        inverse: space inverse depths evenly.
        generator: moves each sample at random between the middles towards its neighbours; none leaves them there.
        like: a tensor whose type and device the depths take.
    """
    near, far = (torch.as_tensor(x, dtype=like.dtype, device=like.device).expand(rays) for x in (near, far))
    number = torch.arange(samples, dtype=like.dtype, device=like.device)
    first, last = (1 / near, 1 / far) if inverse else (near, far)
    step = (last - first) / (samples - 1)
    z = first[:, None] + number * step[:, None]
    if inverse:
        z = 1 / z
    if generator is None:
        return z
    middle = (z[:, 1:] + z[:, :-1]) / 2
    upper, lower = torch.cat([middle, z[:, -1:]], 1), torch.cat([z[:, :1], middle], 1)
    share = torch.rand(z.shape, generator=generator, dtype=like.dtype, device=generator.device).to(like.device)
    return lower + (upper - lower) * share


def sample_pdf(bins: Tensor, weights: Tensor, samples: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw (N, samples) from piecewise constant densities.

    Args:
        bins: (N, M + 1) edges of the pieces, ascending.
        weights: (N, M) not negative; they need not sum to 1, and are left as they are.
        samples: how many for each ray.
        generator: of the draws; without one they are evenly spaced, both ends included.
    """
    weights = weights + 1e-5
    pdf = weights / weights.sum(-1, keepdim=True)
    cdf = torch.cat([torch.zeros_like(pdf[:, :1]), pdf.cumsum(-1)], -1)  # (N, M + 1)
    if generator is None:
        u = torch.linspace(0, 1, samples, dtype=bins.dtype, device=bins.device).expand(len(bins), samples)
    else:
        u = torch.rand(len(bins), samples, generator=generator, dtype=bins.dtype, device=generator.device)
        u = u.to(bins.device)
    above = torch.searchsorted(cdf[:, :-1].contiguous(), u.contiguous(), right=True)  # at most M
    below = (above - 1).clamp(min=0)
    low, high = cdf.gather(1, below), cdf.gather(1, above)
    span = torch.where(high - low < 1e-5, torch.ones_like(low), high - low)
    start, end = bins.gather(1, below), bins.gather(1, above)
    return start + (u - low) / span * (end - start)


def finer_depths(
    z: Tensor, weights: Tensor, samples: int, *, inverse: bool = True, generator: torch.Generator | None = None
) -> Tensor:
    """Depths (N, S + samples), ascending: the coarse ones z (N, S) and new ones where their weights (N, S) are."""
    weights = weights.detach()[:, 1:-1]
    if inverse:
        flipped = (1 / z).flip(1)  # ascending
        middle = (flipped[:, 1:] + flipped[:, :-1]) / 2
        new = 1 / sample_pdf(middle, weights.flip(1), samples, generator=generator)
    else:
        new = sample_pdf((z[:, 1:] + z[:, :-1]) / 2, weights, samples, generator=generator)
    return torch.cat([z, new], 1).sort(1)[0]


def composite(raw: Tensor, z: Tensor, mask: Tensor, *, white: bool = False, min_seen: int = MIN_SEEN) -> Rendered:
    """Blend samples front to back. The density of a sample is its opacity alone: alpha = 1 - exp(-sigma).

    Args:
        raw: (N, S, 4) colour and density.
        z: (N, S) depths.
        mask: (N, S, V, 1) which views see a sample.
        white: put rays on white instead of black.
        min_seen: see ``MIN_SEEN``.
    """
    rgb, sigma = raw[..., :3], raw[..., 3]
    alpha = 1 - torch.exp(-sigma)
    clear = torch.cumprod(1 - alpha + 1e-10, -1)[:, :-1]
    weights = alpha * torch.cat([torch.ones_like(clear[:, :1]), clear], -1)
    colour, total = (weights[..., None] * rgb).sum(1), weights.sum(1)
    if white:
        colour = colour + (1 - total)[:, None]
    seen_by = mask[..., 0].sum(2)  # (N, S)
    several = (seen_by > 1).sum(1) > min_seen
    return Rendered(colour, (weights * z).sum(1), total, weights, z, several, (seen_by > 0).any(1))


class Renderer(nn.Module):
    """IBRNet whole: features of source views, and rays rendered from them.

    The three networks have the names of IBRNet's checkpoints.

    Args:
        feature_net: of the images.
        net_coarse: for the first samples.
        net_fine: for these and the finer ones together, so its ``n_samples`` is larger; or none.
        inverse: space samples in inverse depth.
        white: put rays on white instead of black.
        min_seen: see ``MIN_SEEN``.
    """

    def __init__(
        self,
        feature_net: ResUNet,
        net_coarse: IBRNet,
        net_fine: IBRNet | None,
        *,
        inverse: bool = True,
        white: bool = False,
        min_seen: int = MIN_SEEN,
    ):
        super().__init__()
        self.feature_net, self.net_coarse, self.net_fine = feature_net, net_coarse, net_fine
        self.inverse, self.white, self.min_seen = inverse, white, min_seen

    def sources(self, images: Tensor, cameras: Tensor) -> Sources:
        """Source views with their features: images (V, 3, H, W) in [0, 1], cameras (V, 34)."""
        return Sources(images, cameras, *self.feature_net(images))

    def forward(self, rays: Rays, sources: Sources, *, generator: torch.Generator | None = None) -> CoarseAndFine:
        """Render rays.

        Args:
            rays: of one camera.
            sources: the views they are rendered from.
            generator: of the places of samples, in training; without one they are evenly spaced.
        """
        count = len(rays.origins)
        z = sample_depths(
            rays.near,
            rays.far,
            count,
            self.net_coarse.n_samples,
            inverse=self.inverse,
            generator=generator,
            like=rays.origins,
        )
        coarse = self._render(self.net_coarse, rays, z, sources, sources.coarse)
        if self.net_fine is None:
            return CoarseAndFine(coarse, None)
        extra = self.net_fine.n_samples - self.net_coarse.n_samples
        z = finer_depths(z, coarse.weights, extra, inverse=self.inverse, generator=generator)
        return CoarseAndFine(coarse, self._render(self.net_fine, rays, z, sources, sources.fine))

    def _render(self, network: IBRNet, rays: Rays, z: Tensor, sources: Sources, features: Tensor) -> Rendered:
        points = rays.origins[:, None] + z[..., None] * rays.directions[:, None]  # (N, S, 3)
        found = gather(points, rays.camera, sources.images, sources.cameras, features)
        return composite(network(*found), z, found.mask, white=self.white, min_seen=self.min_seen)
