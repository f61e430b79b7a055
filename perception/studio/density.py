"""Densities of a model in numbers that do not depend on its method."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from perception.geometry.rays import NDC
from perception.studio.errors import SceneError

POINTS_AT_ONCE = 1 << 17


class DensitySpace(NamedTuple):
    """Where a model's density is."""

    box: Tensor  # (2, 3) its corners
    ndc: NDC | None = None  # the coordinates are these, not the world's


@runtime_checkable
class DensityModel(Protocol):
    """A model with a density."""

    def density_space(self) -> DensitySpace:
        """Where its density is."""

    def density_at(self, points: Tensor) -> Tensor:
        """Density (N,), not negative, at points (N, 3) of this space, in 1 / its unit."""


def density_model(model: object, method: str) -> DensityModel:
    """The model, if it has a density.

    Raises:
        SceneError: it has none.
    """
    if not isinstance(model, DensityModel):
        raise SceneError(f"the method {method} has no density that could be scored")
    return model


def grid_size(box: Tensor, voxels: int) -> tuple[int, int, int]:
    """Numbers of voxels along the axes of a box (2, 3) whose longest side has ``voxels``, as close to cubes as that
    can be; at least 2."""
    sides = (box[1] - box[0]).tolist()
    x, y, z = (max(2, round(voxels * side / max(sides))) for side in sides)
    return x, y, z


@torch.no_grad()
def density_volume(model: DensityModel, box: Tensor, size: tuple[int, int, int], device: torch.device | str) -> Tensor:
    """Densities (X, Y, Z) at the centres of the voxels of a box (2, 3), on the CPU.

    Raises:
        SceneError: some are not finite.
    """
    axes = [
        (torch.arange(count) + 0.5) * (float(high - low) / count) + float(low)
        for low, high, count in zip(*box.cpu(), size)
    ]
    volume = torch.empty(size)
    for number, x in enumerate(axes[0]):
        plane = torch.stack(torch.meshgrid(x[None], *axes[1:], indexing="ij"), -1).view(-1, 3)
        parts = [model.density_at(points.to(device)).float().cpu() for points in plane.split(POINTS_AT_ONCE)]
        volume[number] = torch.cat(parts).view(size[1:])
    if not bool(torch.isfinite(volume).all()):
        raise SceneError("the field holds densities that are not finite")
    return volume
