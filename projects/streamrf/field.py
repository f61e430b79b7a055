"""Between the states that a stream holds and fields that can be trained and seen."""

from __future__ import annotations

from perception.radiance.sparse_grid import SparseGrid
from projects.streamrf.delta import FieldState


def grid_of(state: FieldState) -> SparseGrid:
    """The field of a state, to be rendered or trained."""
    return SparseGrid(state.active, state.radius, state.center, state.density, state.sh)


def state_of(grid: SparseGrid) -> FieldState:
    """What a stream may hold of a field: copies, on the CPU."""
    return FieldState(
        active=grid.active.cpu(),
        density=grid.density.detach().cpu().clone(),
        sh=grid.sh.detach().cpu().clone(),
        radius=grid.radius.cpu().clone(),
        center=grid.center.cpu().clone(),
    )


def take_state(grid: SparseGrid, state: FieldState) -> None:
    """Give a field the voxels and values of a state; its parameter objects stay."""
    device = grid.radius.device
    grid.radius.copy_(state.radius)
    grid.center.copy_(state.center)
    grid.replace(state.active.to(device), state.density.to(device), state.sh.to(device))
