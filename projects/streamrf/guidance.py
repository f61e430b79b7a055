"""Where the field of a new frame may change: a band around its surface, and what the pilot saw change (section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.ops.dilate_mask import dilate_mask, erode_mask
from perception.radiance.sparse_grid import SparseGrid
from projects.streamrf.delta import FieldState, FrameDelta

EROSION = 6  # voxels that the band reaches into the field


def narrow_band(active: Tensor, dilation: int, erosion: int = EROSION) -> Tensor:
    """The voxels near the surface of a field: bool (X, Y, Z).

    Args:
        active: its voxels, bool (X, Y, Z).
        dilation: layers outside.
        erosion: layers inside; the border of the grid is no surface.
    """
    return dilate_mask(active, dilation) ^ erode_mask(active, erosion)


@dataclass(frozen=True)
class PilotChange:
    """What a frame changed in the pilot, each bool (X, Y, Z) of its resolution."""

    changed: Tensor
    """Voxels with new values: those that were added, and those that stayed and differ."""
    added: Tensor
    removed: Tensor

    @classmethod
    def of(cls, before: FieldState, delta: FrameDelta) -> PilotChange:
        """The change that a delta makes to the field before it."""
        added, removed = delta.active & ~before.active, before.active & ~delta.active
        changed = added.clone()
        changed[before.active & delta.active] = delta.changed
        return cls(changed, added, removed)

    def upsampled(self, size: tuple[int, int, int]) -> PilotChange:
        """The same at another resolution: all voxels that linear interpolation reaches."""
        return PilotChange(*(upsample_mask(mask, size) for mask in (self.changed, self.added, self.removed)))


def upsample_mask(mask: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Voxels of another resolution to which trilinear interpolation brings anything of a mask; bool, of that size."""
    return F.interpolate(mask[None, None].float(), size=size, mode="trilinear", align_corners=False)[0, 0] > 0


@torch.no_grad()
def take_over_from_pilot(grid: SparseGrid, pilot: SparseGrid, change: PilotChange) -> None:
    """Give a field what its pilot found: values where voxels were added, nothing where some were removed.

    Args:
        grid: with its new voxels already.
        pilot: after the frame.
        change: of the pilot, at the resolution of ``grid``. What was removed wins where both meet.
    """
    active = grid.active
    place = (change.added & active).nonzero()
    rows = grid.links[place[:, 0], place[:, 1], place[:, 2]].long()
    # Centres of voxels of one resolution among those of the other.
    ratio = torch.tensor([old / new for old, new in zip(pilot.size, grid.size)], device=place.device)
    density, sh = pilot.sample((place + 0.5) * ratio - 0.5, grid_coordinates=True)
    grid.density.data[rows], grid.sh.data[rows] = density, sh
    gone = change.removed[active]
    grid.density.data[gone] = 0
    grid.sh.data[gone] = 0


def guide(changed: Tensor) -> Tensor:
    """Where a pilot's change leads: without specks, and with two layers around what is left; bool (X, Y, Z)."""
    return dilate_mask(erode_mask(changed), 2)
