"""The sparse voxel field against numbers recorded from the library that the authors use."""

import copy
from pathlib import Path

import pytest
import torch

from perception.ops.dilate_mask import dilate_mask, erode_mask
from perception.ops.march_rays import March
from perception.ops.masked_rmsprop import masked_rmsprop_
from perception.ops.sparse_total_variation import sparse_total_variation_add_grad_
from perception.radiance.optim import MaskedRMSprop
from perception.radiance.sparse_grid import SparseGrid, empty_levels, run_of_cells, sh_basis

RECORDED = torch.load(Path(__file__).parents[1] / "data/reference/streamrf/sparse_grid.pt", weights_only=True)
IN, OUT, GRADS, STATE = (RECORDED[part] for part in ("inputs", "outputs", "grads", "state_dict"))
WHOLE = March(stop_thresh=0.0)


def close(ours, expected, atol=1e-5, rtol=0.0):
    torch.testing.assert_close(ours.detach(), expected, atol=atol, rtol=rtol)


@pytest.fixture
def grid():
    active = STATE["links"] >= 0
    return SparseGrid(active, STATE["radius"], STATE["center"], STATE["density_data"], STATE["sh_data"])


def test_bases_and_coordinates(grid):
    assert torch.equal(grid.links, STATE["links"])
    close(sh_basis(IN["sh_dirs"]), OUT["sh_bases"], 1e-6)
    close(grid.to_grid(IN["points_world"]), OUT["world2grid"])
    close(grid.to_world(OUT["world2grid"]), OUT["grid2world"])


def test_trilinear_samples(grid):
    for points, name, in_grid in ((IN["points_world"], "sample", False), (IN["points_grid"], "sample_grid", True)):
        density, sh = grid.sample(points, grid_coordinates=in_grid)
        close(density, OUT[f"{name}_density"])
        close(sh, OUT[f"{name}_sh"])


def test_march_and_its_gradients(grid):
    rgb, left, depth = grid.march(IN["origins"], IN["dirs"], WHOLE)
    close(rgb, OUT["rgb"])
    assert (rgb[1] == 0.5).all()
    assert left[1] == 1
    assert depth[1] == 0
    (rgb - IN["gt"]).square().mean().backward()
    close(grid.density.grad, GRADS["density"], 1e-6)
    close(grid.sh.grad, GRADS["sh"], 1e-6)
    # The closed form gives the same.
    other = copy.deepcopy(grid)
    other.squared_error_step(IN["origins"], IN["dirs"], IN["gt"], WHOLE)
    close(other.density.grad, grid.density.grad, 1e-8)
    close(other.sh.grad, grid.sh.grad, 1e-8)


def test_rays_that_stop_early(grid):
    rgb, touched = grid.squared_error_step(IN["origins"], IN["dirs"], IN["gt"], March(stop_thresh=0.01), 1e-12)
    close(rgb, OUT["fused_stop01_rgb"])
    close(grid.density.grad, GRADS["fused_stop01_density"], 1e-6)
    close(grid.sh.grad, GRADS["fused_stop01_sh"], 1e-6)
    assert torch.equal(touched, OUT["fused_stop01_mask"])
    exact = grid.march(IN["origins"], IN["dirs"], WHOLE)[0].detach()
    assert float((rgb - exact).abs().max()) <= 0.01 * (1 + float(exact.max()))


def test_skipping_free_space_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    active = torch.zeros(37, 20, 33, dtype=torch.bool)
    active[20:24, 5:9, 10:20] = True
    voxels = int(active.sum())
    values = torch.rand(voxels, 1, generator=generator) * 9, torch.randn(voxels, 27, generator=generator)
    grid = SparseGrid(active, (1.0, 0.8, 1.2), density=values[0], sh=values[1])
    assert int(grid.levels.max()) == 5
    origins = torch.randn(300, 3, generator=generator) * 2
    directions = torch.tensor([0.15, -0.2, -0.1]) - origins + 0.2 * torch.randn(300, 3, generator=generator)
    skipping = grid.march(origins, directions)
    grid.levels = grid.levels.clamp(max=1)  # cells are still known to be empty, blocks of them are not
    for ours, expected in zip(skipping, grid.march(origins, directions)):
        close(ours, expected, 1e-6)
    assert float((skipping[1] < 0.9).float().mean()) > 0.2


def test_levels_count_the_aligned_empty_blocks():
    active = torch.zeros(8, 8, 8, dtype=torch.bool)
    active[0, 0, 0] = True
    levels = empty_levels(active)
    assert levels[0, 0, 0] == 0
    assert levels[1, 0, 0] == 1
    assert levels[2, 2, 2] == 2
    assert levels[7, 7, 7] == 3


@pytest.mark.parametrize("cells", ["cells", "cells_interior"])
def test_total_variation_as_published(grid, cells):
    for table, weight, edges, name in ((grid.density, 5e-4, False, "density"), (grid.sh, 5e-3, True, "sh")):
        grad, touched = torch.zeros_like(table), torch.zeros(len(table), dtype=torch.bool)
        sparse_total_variation_add_grad_(
            grid.links, table.detach(), grad, touched, IN[cells], weight, level_edges=edges, legacy=True
        )
        expected = OUT[f"tv_{name}" + ("_interior" if cells == "cells_interior" else "")]
        close(grad, expected, 1e-5 * float(expected.abs().max()), 1e-5)
        if cells == "cells":
            assert torch.equal(touched, OUT[f"tv_{name}_mask"])


def test_total_variation_without_the_quirks(grid):
    first = (grid.links == 0).nonzero()[0]
    near = {0, *(int(grid.links[tuple(first + step)]) for step in torch.eye(3, dtype=torch.long))}
    others = torch.tensor([row not in near for row in range(len(grid.sh))])
    for table, weight, edges, name in ((grid.density, 5e-4, False, "density"), (grid.sh, 5e-3, True, "sh")):
        grad, touched = torch.zeros_like(table), torch.zeros(len(table), dtype=torch.bool)
        sparse_total_variation_add_grad_(
            grid.links, table.detach(), grad, touched, IN["cells_interior"], weight, level_edges=edges
        )
        rows = others if edges else torch.ones_like(others)
        expected = OUT[f"tv_{name}_interior"]
        close(grad[rows], expected[rows], 1e-5 * float(expected.abs().max()), 1e-5)
    # Nothing is pulled across the end of the grid: a constant field has no gradient.
    full = SparseGrid.full((4, 3, 5), (1.0, 1.0, 1.0))
    grad, touched = torch.zeros_like(full.density), torch.zeros(60, dtype=torch.bool)
    sparse_total_variation_add_grad_(full.links, full.density.detach(), grad, touched, torch.arange(60), 1.0)
    assert not grad.any()
    assert not touched.any()


def test_rmsprop_of_touched_voxels(grid):
    optimiser = MaskedRMSprop([grid.density], lr=1.0)
    grid.density.touched = IN["rms_mask"]
    for share, expected in ((1.0, OUT["rms_step1"]), (0.5, OUT["rms_step2"])):
        grid.density.grad = GRADS["density"] * share
        optimiser.step()
        close(grid.density, expected, 1e-5, 1e-5)
    assert torch.equal(grid.density[~IN["rms_mask"]], STATE["density_data"][~IN["rms_mask"]])
    square, mask = torch.zeros(2, 1), torch.tensor([True, False])
    value = torch.zeros(2, 1)
    masked_rmsprop_(value, torch.tensor([[-3e-7], [1.0]]), square, mask, lr=0.25, eps=0.0)
    assert value.tolist() == [[0.25], [0.0]]  # the first step is the learning rate, whatever the gradient


@pytest.mark.parametrize(("name", "size", "dilate"), [("down", (6, 5, 4), 1), ("up", (24, 20, 16), 2)])
def test_resampling(grid, name, size, dilate):
    grid.resample(size, 5.0, dilate)
    expected = OUT[name]
    assert torch.equal(grid.active, expected["active"])
    close(grid.density, expected["density"])
    sh = grid.sh if name == "down" else grid.sh[::10, ::3]
    close(sh, expected["sh"])


def test_sparsify_keeps_values_and_bounds_their_number(grid):
    before, dense = grid.active, grid.density.detach()[:, 0] >= 5
    values = grid.sh.detach().clone()
    grid.resample(grid.size, 5.0, 1)
    assert bool(grid.active.sum() > dense.sum())
    was_there, is_there = before[grid.active], grid.active[before]
    assert torch.equal(grid.sh[was_there], values[is_there])
    assert not grid.sh[~was_there].any()
    few = SparseGrid(STATE["links"] >= 0, STATE["radius"], STATE["center"], STATE["density_data"], STATE["sh_data"])
    few.resample((24, 20, 16), 5.0, 0, most=50)
    assert len(few.sh) == 50


def test_dilation_and_erosion_by_counts():
    places = torch.stack(torch.meshgrid(*(torch.arange(36.0) - 17.5,) * 3, indexing="ij"), -1)
    ball = places.norm(dim=-1) < 14
    wide, core = dilate_mask(ball, 2), erode_mask(ball, 6)
    once_more = dilate_mask(dilate_mask(ball))
    assert torch.equal(wide, once_more)
    pooled = torch.nn.functional.max_pool3d(ball[None].float(), 5, 1, 2)[0] > 0
    assert torch.equal(wide, pooled)
    assert int(core.sum()) < int(ball.sum()) < int(wide.sum())
    edge = torch.ones(4, 4, 4, dtype=torch.bool)
    assert erode_mask(edge, 3).all()  # what is outside the grid erodes nothing


def test_runs_of_cells_wrap():
    cells = run_of_cells(1000, 0.3, torch.Generator().manual_seed(1))
    assert len(cells) == 300
    assert int(cells.max()) < 1000
    assert ((cells.diff() == 1) | (cells.diff() == -999)).all()
    assert len(run_of_cells(10, 0.001, torch.Generator())) == 1


def test_an_empty_field_is_background():
    grid = SparseGrid(torch.zeros(4, 4, 4, dtype=torch.bool), (1.0, 1.0, 1.0))
    rgb, touched = grid.squared_error_step(torch.zeros(2, 3), torch.randn(2, 3), torch.zeros(2, 3), March())
    assert (rgb == 0.5).all()
    assert touched.shape == (0,)
    assert grid.sh.grad.shape == (0, 27)


def test_tables_must_fit_the_voxels():
    with pytest.raises(ValueError, match="64 voxels, but 3 densities"):
        SparseGrid(torch.ones(4, 4, 4, dtype=torch.bool), (1.0, 1.0, 1.0), density=torch.zeros(3, 1))


def test_the_authors_tables_are_loaded_whatever_their_order(grid):
    """Under their names, into a grid of another size; empty links say there how far a ray may skip."""
    noise = torch.Generator().manual_seed(0)
    order = torch.randperm(len(grid.sh), generator=noise)
    links = STATE["links"].clone()
    links[links >= 0] = order.argsort()[links[links >= 0].long()].int()
    empty = links < 0
    links[empty] = -torch.randint(1, 6, (int(empty.sum()),), generator=noise, dtype=torch.int32)
    tables = {name: STATE[name][order] for name in ("density_data", "sh_data")}
    parts = torch.nn.ModuleDict({"grid": SparseGrid.full((3, 3, 3), (1.0, 1.0, 1.0))})
    density = parts["grid"].density
    density.grad = torch.zeros_like(density)
    parts.load_state_dict({f"grid.{name}": value for name, value in {**STATE, **tables, "links": links}.items()})
    loaded = parts["grid"]
    assert loaded.density is density
    assert density.grad is None
    for name in ("links", "levels", "density", "sh", "radius", "center"):
        assert torch.equal(getattr(loaded, name), getattr(grid, name)), name
    loaded.load_state_dict(SparseGrid.full((2, 4, 3), (1.0, 1.0, 1.0)).state_dict())
    assert loaded.size == (2, 4, 3)
    with pytest.raises(RuntimeError, match="links name row 175, and the tables have 5"):
        loaded.load_state_dict({**STATE, "density_data": STATE["density_data"][:5], "sh_data": STATE["sh_data"][:5]})
    with pytest.raises(RuntimeError, match=r"Missing key.*sh"):
        loaded.load_state_dict({name: value for name, value in STATE.items() if name != "sh_data"})


@pytest.mark.parametrize("degree", [0, 1])
def test_fewer_harmonics_are_those_whose_others_are_zero(grid, degree):
    functions = (degree + 1) ** 2
    whole = grid.sh.detach().view(-1, 3, 9).clone()
    whole[..., functions:] = 0
    tables = (whole[..., :functions].flatten(1), whole.flatten(1))
    few, many = (SparseGrid(grid.active, grid.radius, grid.center, grid.density, table) for table in tables)
    for field in (few, many):
        field.squared_error_step(IN["origins"], IN["dirs"], IN["gt"], WHOLE)
    close(few.march(IN["origins"], IN["dirs"])[0], many.march(IN["origins"], IN["dirs"])[0].detach(), 1e-6)
    close(few.density.grad, many.density.grad, 1e-8)
    close(few.sh.grad.view(-1, 3, functions), many.sh.grad.view(-1, 3, 9)[..., :functions], 1e-8)
    assert SparseGrid.full((2, 2, 2), (1.0, 1.0, 1.0), sh_degree=degree).sh.shape == (8, 3 * functions)
    with pytest.raises(ValueError, match="the degree of harmonics must be from 0 to 2, not 3"):
        SparseGrid.full((2, 2, 2), (1.0, 1.0, 1.0), sh_degree=3)
    with pytest.raises(ValueError, match=r"tables must be .* not \(8, 1\), \(8, 4\)"):
        SparseGrid(torch.ones(2, 2, 2, dtype=torch.bool), (1.0, 1.0, 1.0), sh=torch.zeros(8, 4))
