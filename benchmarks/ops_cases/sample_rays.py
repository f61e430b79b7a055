import torch
import torch.nn.functional as F

from ops_cases import Timing
from perception.ops.sample_rays import sample_rays


def timings(large: bool, device: str) -> dict[str, Timing]:
    rays = 65_536 if large else 4096
    origin = F.normalize(torch.randn(rays, 3), dim=1) * 1.7
    direction = F.normalize(torch.rand(rays, 3) - 0.5 - origin, dim=1).to(device)
    origin = origin.to(device)
    axis = torch.linspace(-1, 1, 128, device=device)
    mask = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0) < 0.45
    low, high, scale = (torch.full((3,), number, device=device) for number in (-1.0, 1.0, 63.5))
    steps = torch.full((rays,), 400, device=device)
    return {
        f"sample_rays {rays} x 400 steps, mask 128^3": Timing(
            lambda: sample_rays(origin, direction, steps, low, high, 2 / 256, mask, scale, scale),
            operations=2 * rays * 400 * 20.0,
        )
    }
