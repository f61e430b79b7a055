"""A static and a moving ball, two frames: what training, coding and doing nothing are worth (spec, section 10)."""

import pytest
import torch

from perception.ops.march_rays import March
from perception.radiance.optim import MaskedRMSprop
from perception.radiance.sparse_grid import SparseGrid, run_of_cells
from projects.streamrf.delta import decode_frame, encode_frame
from projects.streamrf.field import grid_of, state_of
from projects.streamrf.guidance import narrow_band

SIDE, PIXELS, VIEWS = 20, 22, 16
HELD_OUT = [5, 6, 9]  # amid the others: a view outside of them tells of the first field's guesses, not of the update
MARCH = March(stop_thresh=1e-7)
SHIFT, KEEP = 0.08, 1.0


def camera_rays(number):
    """Rays of a camera of a forward-facing rig, four by four on a sphere around the box, which look at its centre."""
    row, column = (2 * part / 3 - 1 for part in divmod(number, 4))
    place = torch.tensor([2.6, 1.5 * column, 1.5 * row])
    place = 2.6 * place / place.norm()
    forward = -place / place.norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0]))
    right = right / right.norm()
    down = torch.linalg.cross(forward, right)
    v, u = torch.meshgrid(*((torch.arange(float(PIXELS)) + 0.5) / PIXELS * 2 - 1,) * 2, indexing="ij")
    directions = forward + 0.45 * (u[..., None] * right + v[..., None] * down)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    return place.expand(PIXELS * PIXELS, 3), directions.reshape(-1, 3)


def picture(origins, directions, shift):
    """Two balls on grey, coloured by their normals."""
    colours, nearest = torch.full((len(origins), 3), 0.5), torch.full((len(origins),), torch.inf)
    balls = (([-0.35, 0.1, 0.0], 0.4, [0.9, 0.5, 0.3]), ([0.4 + shift, -0.2, 0.1], 0.35, [0.3, 0.6, 0.9]))
    for centre, radius, tint in balls:
        offset = origins - torch.tensor(centre)
        b = (directions * offset).sum(-1)
        inside = b.square() - offset.square().sum(-1) + radius**2
        distance = -b - inside.clamp(min=0).sqrt()
        hit = (inside > 0) & (distance < nearest)
        normal = (offset + distance[:, None] * directions) / radius
        colours = torch.where(hit[:, None], torch.tensor(tint) * (0.7 + 0.3 * normal), colours)
        nearest = torch.where(hit, distance, nearest)
    return colours


def rays_of(numbers, shift):
    pairs = [camera_rays(number) for number in numbers]
    origins, directions = (torch.cat(parts) for parts in zip(*pairs))
    return origins, directions, picture(origins, directions, shift)


def train(grid, data, steps, rays, rates, seed, may_change=None):
    optimisers = [MaskedRMSprop([parameter]) for parameter in (grid.density, grid.sh)]
    for step in range(steps):
        generator = torch.Generator().manual_seed(seed + step)
        chosen = torch.randint(len(data[0]), (rays,), generator=generator)
        _, touched = grid.squared_error_step(*(part[chosen] for part in data), MARCH, 1e-12)
        masks = (touched, touched.clone())
        grid.add_total_variation(run_of_cells(SIDE**3, 0.01, generator), 5e-4, 5e-3, masks)
        for optimiser, parameter, mask, rate in zip(optimisers, (grid.density, grid.sh), masks, rates(step / steps)):
            parameter.touched = mask if may_change is None else mask & may_change
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()


def score(grid, data):
    rgb = grid.march(*data[:2], MARCH)[0].detach().clamp(0, 1)
    return float(-10 * (rgb - data[2]).square().mean().log10())


@pytest.mark.slow
def test_a_frame_is_worth_its_bytes():
    train_views = [number for number in range(VIEWS) if number not in HELD_OUT]
    first, second, held_out = (
        rays_of(views, shift) for views, shift in ((train_views, 0.0), (train_views, SHIFT), (HELD_OUT, SHIFT))
    )
    grid = SparseGrid.full((SIDE,) * 3, (1.0, 1.0, 1.0))
    train(grid, first, 500, 400, lambda share: (2 * 0.1**share, 0.03 * 0.1**share), seed=0)
    grid.sparsify(5.0, 2)
    before = state_of(grid).stored(True)
    no_update = score(grid_of(before), held_out)

    grid = grid_of(before)
    grid.dilate(2)
    mask = narrow_band(before.active, 2)[grid.active]
    train(grid, second, 100, 400, lambda _: (0.5, 0.01), seed=1000, may_change=mask)
    trained = score(grid, held_out)
    grid.sparsify(5.0, 2)
    delta = encode_frame(1, before, state_of(grid), keep_threshold=KEEP, prune_threshold=0.2)
    decoded = score(grid_of(decode_frame(before, delta)), held_out)
    whole = SIDE**3 // 8 + 56 * len(before.sh)
    assert decoded - no_update >= 2.0  # section 10 asks for 0.3
    assert trained - decoded <= 0.4
    assert delta.raw_bytes <= 0.35 * whole
