"""Grids seen from above.

A grid covers a rectangle of the ground. Its rows follow y and its columns x, both from low to high: in nuScenes' LiDAR
frame (x right, y forward) row 0 is behind the vehicle and column 0 to its left. The flat number of a cell is
``row * columns + column``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BevGrid:
    """A rectangle of the ground in cells.

    Attributes:
        low, high: its corners (x, y) in metres.
        rows, columns: cells along y and along x.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    rows: int
    columns: int

    @property
    def cell_size(self) -> tuple[float, float]:
        """Along x and along y, in metres."""
        return (self.high[0] - self.low[0]) / self.columns, (self.high[1] - self.low[1]) / self.rows

    def places(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
        """Centres (rows * columns, 2) of all cells as (x, y) shares of the rectangle, in [0, 1].

        Example:
            >>> BevGrid((-10, -10), (10, 10), 2, 2).places()
            tensor([[0.2500, 0.2500],
                    [0.7500, 0.2500],
                    [0.2500, 0.7500],
                    [0.7500, 0.7500]])
        """
        x = (torch.arange(self.columns, dtype=dtype, device=device) + 0.5) / self.columns
        y = (torch.arange(self.rows, dtype=dtype, device=device) + 0.5) / self.rows
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)

    def centres(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
        """Centres (rows * columns, 2) of all cells as (x, y) in metres."""
        low = torch.tensor(self.low, dtype=dtype, device=device)
        high = torch.tensor(self.high, dtype=dtype, device=device)
        return low + self.places(dtype, device) * (high - low)

    def cells(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Flat numbers of the cells (...,) that hold points (..., 2+), and whether there is one: bool (...,).

        Numbers of points outside are 0.
        """
        low, size = points.new_tensor(self.low), points.new_tensor(self.cell_size)
        column, row = ((points[..., :2] - low) / size).floor().long().unbind(-1)
        inside = (column >= 0) & (column < self.columns) & (row >= 0) & (row < self.rows)
        return torch.where(inside, row * self.columns + column, 0), inside


def augmentation_matrix(rotation: float, scale: float, flip_x: bool, flip_y: bool) -> Tensor:
    """BEVFormer's augmentation of the ground as a matrix (3, 3) on points, float64: first turned, then scaled, then
    mirrored.

    Args:
        rotation: radians from +x to +y.
        scale: of all lengths.
        flip_x, flip_y: whether x, or y, changes its sign.
    """
    angle = torch.tensor(rotation, dtype=torch.float64)
    turn = torch.eye(3, dtype=torch.float64)
    turn[0, 0] = turn[1, 1] = angle.cos()
    turn[0, 1], turn[1, 0] = -angle.sin(), angle.sin()
    mirror = torch.diag(torch.tensor([-1.0 if flip_x else 1, -1.0 if flip_y else 1, 1], dtype=torch.float64))
    return mirror @ (scale * turn)


def warp(features: Tensor, inverse: Tensor, grid: BevGrid) -> Tensor:
    """Features of the ground after it was moved by a linear map: what was at p is then at M p.

    Args:
        features: (B, C, rows, columns).
        inverse: (B, 2+, 2+) the inverse of M, of which the upper left 2 x 2 is used; in metres.
        grid: where the features lie.

    Returns:
        (B, C, rows, columns), bilinear, and 0 where nothing was known.
    """
    low, high = features.new_tensor(grid.low), features.new_tensor(grid.high)
    centres = grid.centres(features.dtype, features.device)
    sources = centres @ inverse[:, :2, :2].to(features).mT  # (B, cells, 2)
    places = 2 * (sources - low) / (high - low) - 1
    places = places.view(-1, grid.rows, grid.columns, 2)
    return torch.nn.functional.grid_sample(features, places, mode="bilinear", padding_mode="zeros", align_corners=False)
