"""How well pictures of a scene agree with each other: what one shows, seen from the next one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.dn2n.losses import overlap_mask, to_neighbour
from projects.dn2n.projection import camera_rays


def warped_error(
    images: Tensor, depths: Tensor, cameras: Tensor, pairs: list[tuple[int, int]], tolerance: float = 0.05
) -> float:
    """Mean squared difference of colours at the same points in pairs of pictures.

    Args:
        images: (K, 3, H, W).
        depths: (K, H, W) along the viewing axis.
        cameras: (K, 34).
        pairs: numbers of pictures.
        tolerance: difference of depths, as a share, up to which both see the same point.

    Returns:
        Not a number where no two pictures see a point in common.
    """
    height, width = images.shape[-2:]
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([u, v], -1).reshape(-1, 2).to(images)
    total, count = 0.0, 0
    for one, other in pairs:
        warped = to_neighbour(*camera_rays(cameras[one], pixels), depths[one].reshape(-1), cameras[other])
        places = 2 * warped.pixels / pixels.new_tensor([width - 1, height - 1]) - 1
        both = torch.cat([images[other], depths[other][None]])[None]  # (1, 4, H, W)
        seen = F.grid_sample(both, places[None, None], align_corners=True)[0, :, 0]  # (4, P)
        mask = overlap_mask(warped, seen[3], tolerance)
        difference = (images[one].flatten(1) - seen[:3]).square().mean(0)
        total, count = total + float(difference[mask].sum()), count + int(mask.sum())
    return total / count if count else float("nan")
