"""ActiveNeRF: a batch of rays through both networks, and the loss of their means and variances."""

import torch
from torch import nn

from projects.activenerf.field import ActiveNeRFField
from projects.activenerf.losses import activenerf_losses
from projects.activenerf.rendering import Sampling, render_rays
from system_cases import Core


def core(large: bool) -> Core:
    rays, sizes = (1024, {}) if large else (12, {"depth": 4, "width": 32, "skips": (1,), "multires": 4})
    networks = nn.ModuleDict({name: ActiveNeRFField(**sizes) for name in ("coarse", "fine")})
    for network in networks.values():
        nn.init.constant_(network.alpha_linear.bias, 0.5)  # otherwise most rays would meet nothing
    origins = torch.randn(rays, 3) * 0.1 + torch.tensor([0.0, 0.0, 4.0])
    directions = torch.randn(rays, 3) * 0.1 - torch.tensor([0.0, 0.0, 1.0])
    return Core(networks, (origins, directions, torch.rand(rays, 3)), _loss_of(Sampling() if large else Sampling(8, 8)))


def _loss_of(sampling):
    def loss(networks, origins, directions, colours):
        origins, directions = origins.detach(), directions.detach()
        bounds = (torch.full_like(origins[:, 0], bound) for bound in (2.0, 6.0))
        made = render_rays(
            networks["coarse"],
            networks["fine"],
            origins,
            directions,
            nn.functional.normalize(directions, dim=1),
            *bounds,
            sampling,
            background=1.0,
        )
        return torch.stack([*activenerf_losses(*made, colours, fallback="ray").values()]).sum()

    return loss
