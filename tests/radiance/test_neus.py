"""Signed distances in a hash grid, opacities from them, and the grid of occupancy: known answers."""

import math

import pytest
import torch
import torch.nn.functional as F

from perception.radiance.compositing import alphas_to_weights
from perception.radiance.hash_sdf import HashSDF, ProgressiveHashGrid
from perception.radiance.neus import mask_loss, neus_alpha, section_alpha
from perception.radiance.occupancy import OccupancyGrid, transmittance, visible


def small_grid(**options):
    torch.manual_seed(0)
    return ProgressiveHashGrid(4, 2, 10, 4, **options)


class Sphere(HashSDF):
    """A ball of radius 0.5 in place of the network."""

    def features(self, points):
        return points.norm(dim=-1, keepdim=True) - 0.5


def test_published_grid():
    grid = ProgressiveHashGrid(start_level=6, start_step=6000, update_steps=500)
    assert grid.params.numel() == 14_533_536
    assert grid.layout.num_entries == 7_266_768
    assert [grid.level_at(step) for step in (0, 6000, 6499, 6500, 11_000, 80_000)] == [6, 6, 6, 7, 16, 16]
    field = HashSDF(grid)
    field.update_step(0)
    assert field.eps == pytest.approx(0.014765, abs=1e-6)
    field.update_step(11_000)
    assert field.eps == pytest.approx(0.000366, abs=1e-6)


def test_grid_of_ones_gives_ones_at_the_levels_that_take_part():
    grid = small_grid(start_level=2, start_step=10, update_steps=5)
    torch.nn.init.ones_(grid.params)
    points = torch.rand(50, 3)
    for step, level in ((0, 2), (15, 3), (100, 4)):
        grid.update_step(step)
        found = grid(points)
        torch.testing.assert_close(found[:, 3 : 3 + 2 * level], torch.ones(50, 2 * level), rtol=0, atol=1e-6)
        assert not bool(found[:, 3 + 2 * level :].any())
        torch.testing.assert_close(found[:, :3], 2 * points - 1)


@pytest.mark.parametrize(("keep", "read"), [(True, [2, 4, 4]), (False, [2, 4, 3])])
def test_levels_at_an_earlier_step(keep, read):
    grid = small_grid(start_level=2, start_step=10, update_steps=5, keep_levels=keep)
    torch.nn.init.ones_(grid.params)
    cells, counts = [], []
    for step in (0, 100, 15):
        grid.update_step(step)
        cells.append(grid.cell)
        counts.append(int((grid(torch.rand(1, 3))[0, 3:] > 0.5).sum()) // 2)
    assert counts == read
    assert cells[1] < cells[2] < cells[0]  # the reach of differences always follows the step


def test_sphere_initialisation():
    torch.manual_seed(1)
    field = HashSDF(small_grid(), width=128, out_features=4)
    points = F.normalize(torch.randn(200, 3), dim=-1) * torch.linspace(0.3, 1.2, 200)[:, None]
    error = field.distance(points) * 1.5 - (points.norm(dim=-1) - 0.75)
    assert float(error.detach().abs().mean()) < 0.1


def test_finite_differences_on_a_sphere():
    field = Sphere(small_grid(), width=8)
    field.encoding.base_resolution, field.encoding.per_level_scale = 3 / 0.01476, 1.0
    points = torch.randn(4000, 3, dtype=torch.float64)
    radius = points.norm(dim=-1)
    errors = (field(points).gradient - F.normalize(points, dim=-1)).abs().amax(-1)
    assert float(errors[(radius >= 0.2) & (radius < 1.4)].max()) < 1.1e-3
    assert float(errors[(radius >= 0.4) & (radius < 1.4)].max()) < 3e-4
    exact = field.analytic(points, create_graph=False)
    torch.testing.assert_close(exact.gradient, F.normalize(points, dim=-1))
    curvature = field.curvature(points, exact.gradient, torch.rand_like(points))
    assert float(curvature.min()) >= math.acos(1 - 1e-6) / math.pi - 1e-9  # the floor of the clamp


def test_gradient_reaches_the_network_through_finite_differences_and_curvature():
    field = HashSDF(small_grid(), width=8, out_features=4)
    points = torch.rand(20, 3) - 0.5
    found = field(points)
    (found.gradient.norm(dim=-1) - 1).square().mean().backward()
    assert all(float(p.grad.abs().sum()) > 0 for n, p in field.network.named_parameters() if "layers.0" in n)
    field.zero_grad()
    field.curvature(points, field(points).gradient, torch.rand(20, 3)).mean().backward()
    assert float(field.network.layers[0].bias.grad.abs().sum()) > 0


@pytest.mark.parametrize("inv_s", [20.0, 100.0, 1000.0])
def test_a_plane_met_head_on(inv_s):
    step = 0.0050742
    middle = (torch.arange(round(1 / step)) + 0.5) * step
    normal = torch.tensor([[0.0, 0.0, 1.0]]).expand(len(middle), 3)
    alpha = neus_alpha(0.5 - middle, normal, -normal, step, inv_s)
    assert bool(((alpha >= 0) & (alpha <= 1)).all())
    weights, left = alphas_to_weights(alpha, torch.zeros(len(middle), dtype=torch.long), 2, 0.0)
    assert float(weights.sum()) >= 0.99999
    assert float(middle[weights.argmax()]) == pytest.approx(0.4998, abs=1.5 * step)
    assert left[1] == 1  # a ray without samples


def test_lengths_may_be_a_column():
    normal, directions = (F.normalize(torch.randn(5, 3), dim=-1) for _ in range(2))
    sdf, dists = torch.randn(5) * 0.01, torch.rand(5) * 0.02
    columns = neus_alpha(sdf, normal, directions, dists[:, None], inv_s=100.0)
    assert torch.equal(columns, neus_alpha(sdf, normal, directions, dists, inv_s=100.0))
    assert neus_alpha(sdf, normal, directions, torch.tensor(0.01), inv_s=100.0).shape == (5,)


def test_gradient_of_opacity():
    sdf, normal = torch.randn(6, dtype=torch.float64) * 0.05, torch.randn(6, 3, dtype=torch.float64)
    directions = F.normalize(torch.randn(6, 3, dtype=torch.float64), dim=-1)
    inputs = (sdf.requires_grad_(), F.normalize(normal, dim=-1).requires_grad_())
    assert torch.autograd.gradcheck(lambda s, n: neus_alpha(s, n, directions, 0.02, 30.0, 0.4), inputs)


def test_mask_loss_is_finite_at_the_ends():
    assert float(mask_loss(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))) == pytest.approx(
        -math.log(1e-3), rel=1e-3
    )


def occupied_ball(resolution=32):
    grid = OccupancyGrid(1.0, resolution)
    grid.update(0, lambda p: section_alpha(p.norm(dim=-1) - 0.5, -1.0, 0.02, 200.0), torch.Generator().manual_seed(0))
    return grid


def test_marcher_visits_every_marked_cell_on_a_ray_and_no_other():
    grid = occupied_ball()
    assert 0.06 < float(grid.binaries.float().mean()) < 0.12  # a ball of radius 0.5 in a cube of 8: 0.065
    generator = torch.Generator().manual_seed(1)
    directions = F.normalize(torch.randn(40, 3, generator=generator), dim=-1)
    origins = -3 * directions + 0.4 * torch.randn(40, 3, generator=generator)
    step = 0.01
    sections = grid.sections(origins, directions, step)
    for ray in range(40):
        middle = sections.middle[sections.ray_id == ray]
        low, high = (-1 - origins[ray]) / directions[ray], (1 - origins[ray]) / directions[ray]
        enter, leave = torch.minimum(low, high).max(), torch.maximum(low, high).min()
        every = enter + (torch.arange(int(max(0, (leave - enter) / step + 0.5))) + 0.5) * step
        cells = ((origins[ray] + every[:, None] * directions[ray] + 1) / grid.cell).floor().long()
        inside = ((cells >= 0) & (cells < 32)).all(-1)
        i, j, k = cells.clamp(0, 31).unbind(-1)
        expected = every[inside & grid.binaries[0][i, j, k]]
        assert abs(len(expected) - len(middle)) <= 2  # rounding at faces of cells
        if len(expected) == len(middle):
            torch.testing.assert_close(middle, expected, rtol=0, atol=1e-4)


def test_bounds_of_secondary_rays():
    sections = OccupancyGrid(1.5, 8).sections(
        torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]), 1.45 / 95, near=0.05, far=1.5
    )
    assert len(sections.ray_id) == 95
    assert float(sections.t_start[0]) == pytest.approx(0.05)
    assert float(sections.t_end[-1]) == pytest.approx(1.5, abs=1e-5)


def test_rays_end_where_no_light_is_left():
    grid = OccupancyGrid(1.0, 4)
    sections = grid.sections(torch.tensor([[0.0, 0, -3]]), torch.tensor([[0.0, 0, 1]]), 0.1)
    alpha = torch.full((len(sections.ray_id),), 0.9)
    assert len(visible(sections, alpha).ray_id) == 5  # 1, 0.1, 0.01, 0.001, 0.0001
    assert transmittance(alpha, sections.ray_id)[:3].tolist() == pytest.approx([1, 0.1, 0.01])


def test_updates_decay_and_are_a_function_of_their_generator():
    grids = [occupied_ball(16) for _ in range(2)]
    for grid in grids:
        before = grid.occs.clone()
        grid.update(8, lambda p: torch.ones(len(p)), torch.Generator())  # not a step of updates
        assert torch.equal(grid.occs, before)
        for step in (16, 272):
            grid.update(step, lambda p: torch.zeros(len(p)), torch.Generator().manual_seed(step))
    assert torch.equal(grids[0].occs, grids[1].occs)
    assert float(grids[0].occs.max()) < 1


def test_updates_after_the_first_look_at_no_more_than_half_of_the_cells():
    grid = OccupancyGrid(1.0, 8)  # all marked
    looked = []
    for step in (240, 256):
        grid.update(step, lambda p: looked.append(len(p)) or torch.ones(len(p)), torch.Generator().manual_seed(step))
    assert looked[0] == 512
    assert 128 < looked[1] <= 256

    grid = occupied_ball(16)
    marked = grid.binaries[0].clone()  # few: all of them are looked at
    grid.update(256, lambda p: torch.ones(len(p)), torch.Generator().manual_seed(0))
    assert bool((grid.occs.view_as(marked)[marked] == 1).all())
