"""Where the cells of the bird's-eye view lie in the images (BEVFormer, arXiv 2203.17270, section 3.3).

Everything here is computed in float32 whatever the precision around it: metres at tens of metres, divided by depth and
by the width of an image, leave half types a few pixels.

Notation: B batch, N cameras, Q cells (row by row), D points of a cell's pillar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perception.geometry.bev import BevGrid
from perception.geometry.cameras import NEAR


@dataclass
class Rig:
    """The cameras of a batch.

    Attributes:
        lidar2img: (B, N, 4, 4) takes homogeneous points of the detection frame (the current LiDAR's; x right, y
            forward, z up, metres) to (u depth, v depth, depth, 1); pixels of the network's input.
        image_size: height and width of the network's input, padding included, which all cameras share.
        valid_size: (B, 2) height and width of each sample before the batch was padded to a common size; None where
            that is ``image_size``. A sample's own padding to a multiple of the stride counts as image.
    """

    lidar2img: Tensor
    image_size: tuple[int, int]
    valid_size: Tensor | None = None


@dataclass
class VisibleQueries:
    """Which queries each camera sees: a ragged list instead of a table with empty places.

    Attributes:
        rows: for each of the B N cameras (samples outermost) the numbers of queries in the flattened (B Q), (r,) int64.
        references: for each of them the places of the D pillar points in the image, (r, D, 2) x, y in shares of it.
        seen: (B, Q, 1) number of cameras that see a query, at least 1.
    """

    rows: Sequence[Tensor]
    references: Sequence[Tensor]
    seen: Tensor


def pillar_points(grid: BevGrid, num_points: int, height: float, device: torch.device | str = "cpu") -> Tensor:
    """Points above each cell, from half a metre above the lowest to half a metre below the highest.

    Args:
        grid: the cells.
        num_points: D.
        height: vertical extent of the detection range, metres.
        device: of the result.

    Returns:
        (Q, D, 3) x, y, z in shares of the detection range.
    """
    places = grid.places(device=device)[:, None].expand(-1, num_points, -1)
    z = torch.linspace(0.5, height - 0.5, num_points, device=device) / height
    return torch.cat([places, z.expand(len(places), -1)[..., None]], -1)


def project_pillars(points: Tensor, pc_range: Sequence[float], rig: Rig) -> tuple[Tensor, Tensor]:
    """Projects points of the detection range into all images.

    Args:
        points: (Q, D, 3) in shares of the range.
        pc_range: its lowest and highest x, y, z, metres.
        rig: the cameras.

    Returns:
        (B, N, Q, D, 2) x, y in shares of the image, of no meaning where the mask is False, and the mask
        (B, N, Q, D): in front of the camera and strictly inside of the image.
    """
    with torch.autocast(points.device.type, enabled=False):
        low, high = (points.new_tensor(pc_range[i : i + 3], dtype=torch.float32) for i in (0, 3))
        x, y, z = (points.float() * (high - low) + low).flatten(0, 1)[..., None].unbind(-2)  # Q D, 1
        matrix = rig.lidar2img.to(points.device, torch.float32)[:, :, None, :3]  # B, N, 1, 3, 4
        # Sums of products, which no setting computes in TF32 as it would a matrix product.
        scaled = matrix[..., 0] * x + matrix[..., 1] * y + matrix[..., 2] * z + matrix[..., 3]  # B, N, Q D, 3
        depth = scaled[..., 2:]
        size = scaled.new_tensor(rig.image_size[::-1])
        places = scaled[..., :2] / depth.clamp(min=NEAR) / size
        limit = size.new_ones(2) if rig.valid_size is None else rig.valid_size.to(size).flip(-1)[:, None, None] / size
        mask = (depth > NEAR).squeeze(-1) & (places > 0).all(-1) & (places < limit).all(-1)
    shape = points.shape[:2]
    return places.unflatten(2, shape), mask.unflatten(2, shape)


def visible_queries(references: Tensor, mask: Tensor) -> VisibleQueries:
    """Lists the queries of which a camera sees at least one pillar point; one wait for the device.

    Args:
        references: (B, N, Q, D, 2).
        mask: (B, N, Q, D) bool.
    """
    hits = mask.any(-1)  # B, N, Q
    batch, camera, query = hits.nonzero(as_tuple=True)
    counts = hits.sum(-1).flatten().tolist()
    rows = (batch * hits.shape[-1] + query).split(counts)
    return VisibleQueries(rows, references[batch, camera, query].split(counts), hits.sum(1).clamp(min=1)[..., None])
