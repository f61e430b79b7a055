"""Where rays enter and leave a box."""

import torch
from torch import Tensor

__all__ = ["ray_aabb"]

FAR = 1e9  # a ray ends where it leaves the box, however far that is


def ray_aabb(
    rays_o: Tensor, rays_d: Tensor, xyz_min: Tensor, xyz_max: Tensor, near: float, far: float = FAR
) -> tuple[Tensor, Tensor]:
    r"""Ray parameters at which rays enter and leave an upright box, both clamped to ``[near, far]``.

    Components of ``rays_d`` that are exactly 0 count as 1e-6 (DirectVoxGO, arXiv:2111.11215).

    Args:
        rays_o: origins of shape :math:`(N, 3)`.
        rays_d: directions of shape :math:`(N, 3)`, of any length.
        xyz_min: lowest corner of the box, of shape :math:`(3,)`.
        xyz_max: highest corner.
        near: smallest parameter, in units of ``|d|``.
        far: largest.

    Returns:
        ``t_min`` and ``t_max``, of shape :math:`(N,)`; a ray that misses the box has ``t_max <= t_min``.
    """
    direction = torch.where(rays_d == 0, torch.full_like(rays_d, 1e-6), rays_d)
    to_max, to_min = (xyz_max - rays_o) / direction, (xyz_min - rays_o) / direction
    t_min = torch.minimum(to_max, to_min).amax(-1).clamp(near, far)
    t_max = torch.maximum(to_max, to_min).amin(-1).clamp(near, far)
    return t_min, t_max
