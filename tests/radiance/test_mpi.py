"""The forward-facing field: equal to the released code's recorded numbers; resolution, masks, growth; and it learns."""

import math
from pathlib import Path

import pytest
import torch

from perception.radiance.distortion import distortion_loss
from perception.radiance.mpi import DirectMPIGO, mpi_resolution
from perception.radiance.optim import MaskedAdam
from perception.radiance.released import released_field, released_kwargs

CASE = torch.load(Path(__file__).parents[1] / "data/reference/nerf_4k/mpi_encoder.pt", weights_only=False)
BOX = ([-1.0, -1, -1], [1.0, 1, 1])


def recorded() -> DirectMPIGO:
    kwargs = {name: value for name, value in CASE["meta"]["ctor"].items() if name not in ("mode_type", "dim_rend")}
    field = DirectMPIGO(kwargs.pop("xyz_min"), kwargs.pop("xyz_max"), **kwargs)
    field.load_state_dict(CASE["state_dict"])
    return field


def rays() -> tuple[torch.Tensor, ...]:
    return tuple(CASE["inputs"][name] for name in ("rays_o", "rays_d", "viewdirs"))


def straight_rays(count=50):
    """Rays through all planes at places across the box."""
    origins = torch.cat([torch.rand(count, 2) * 1.6 - 0.8, torch.full((count, 1), -1.0)], 1)
    directions = torch.tensor([[0.0, 0, 2]]).expand(count, 3)
    return origins, directions, directions / 2


def test_recorded_rendering_and_gradients():
    field, expected, target = recorded(), CASE["outputs"], CASE["inputs"]["target"]
    rendered = field(*rays(), bg=0.0, stepsize=1.0)
    assert torch.equal(rendered.ray_id, expected["ray_id"].long())
    for name in ("weights", "alphainv_last", "raw_rgb", "rgb_feature", "depth"):
        torch.testing.assert_close(getattr(rendered, name), expected[name], atol=1e-5, rtol=0)
    assert not rendered.depth.requires_grad
    distortion = distortion_loss(rendered.weights, rendered.s, 1 / rendered.num_steps, rendered.ray_id, len(target))
    torch.testing.assert_close(distortion, expected["distortion"], atol=1e-6, rtol=0)
    loss = (rendered.rgb_feature - target).abs().mean() + 0.01 * distortion
    torch.testing.assert_close(loss, expected["loss"], atol=1e-6, rtol=0)
    loss.backward()
    grads = dict(CASE["grads"])
    after = grads.pop("density.grid_after_tv")
    torch.testing.assert_close(field.k0.grid.grad[:, :1], grads.pop("k0.grid[:, :1]"), rtol=1e-4, atol=1e-9)
    for name, grad in grads.items():
        torch.testing.assert_close(field.get_parameter(name).grad, grad, rtol=1e-4, atol=1e-8)
    own = field.density.grid.grad.clone()
    field.density_total_variation_add_grad(0.01, dense=True, released_axes=True)
    torch.testing.assert_close(field.density.grid.grad, after, rtol=1e-5, atol=1e-8)
    field.density.grid.grad = own
    field.density_total_variation_add_grad(0.01, dense=True)
    assert not torch.allclose(field.density.grid.grad, after, atol=1e-5)


def test_recorded_shifts_of_the_planes():
    field = DirectMPIGO(*BOX, num_voxels=16**3, mpi_depth=16)
    torch.testing.assert_close(field.act_shift.grid, CASE["state_dict"]["act_shift.grid"])
    assert field.act_shift.grid.shape == (1, 1, 1, 1, 16)
    assert not field.act_shift.grid.requires_grad


def test_planes_without_density_share_the_light():
    with torch.no_grad():
        rendered = DirectMPIGO(*BOX, num_voxels=16**3, mpi_depth=16)(*straight_rays())
    assert float(rendered.weights.min()) >= 0.0624
    assert float(rendered.weights.max()) <= 0.0627
    assert float(rendered.alphainv_last.max()) <= 1.9e-5
    assert rendered.ray_id.bincount().tolist() == [16] * 50


def test_resolution_rule():
    # r = sqrt(3136 / 16 / (2.6 * 2.4)) = 5.604: 14.57 and 13.45 cells.
    assert recorded().world_size == (14, 13, 16)
    low, high = torch.tensor([-1.5, -1.125, -1.0]), torch.tensor([1.5, 1.125, 1.0])
    assert mpi_resolution(low, high, 384 * 384 * 256, 256) == (443, 332, 256)
    assert sum(p.numel() for p in DirectMPIGO(*BOX, num_voxels=16**3, mpi_depth=16).rgbnet.parameters()) == 5379
    for kwargs, words in (({"num_voxels": 8}, "too few"), ({"mpi_depth": 1}, "2 planes")):
        with pytest.raises(ValueError, match=words):
            DirectMPIGO(*BOX, **{"num_voxels": 4096, "mpi_depth": 16, **kwargs})
    with pytest.raises(ValueError, match="volume"):
        DirectMPIGO([0, 0, 0], [1.0, 0, 1], num_voxels=4096, mpi_depth=16)


@pytest.mark.parametrize("act_type", ["relu", "gauss", "lkrelu"])
def test_colours_use_position_and_direction(act_type):
    field = DirectMPIGO(*BOX, num_voxels=512, mpi_depth=8, viewbase_pe=2, spatial_pe=1, act_type=act_type)
    assert field.rgbnet[0].in_features == 9 + (3 + 6) + (3 + 12)
    points, features = torch.tensor([[-1.0, 0.5, 1.0]]), torch.rand(1, 9)
    view = torch.tensor([[0.6, 0.0, -0.8]])
    position = torch.tensor([[1.0, 0.5, -1.0]])  # last axis first
    wanted = [features, position, position.sin(), position.cos(), view]
    wanted += [f(torch.tensor([[0.6, 1.2, 0.0, 0.0, -0.8, -1.6]])) for f in (torch.sin, torch.cos)]
    (x,) = (torch.cat(wanted, -1),)
    activation = {
        "relu": lambda x: x.clamp(min=0),
        "gauss": lambda x: torch.exp(-(x**2) / 0.005),
        "lkrelu": lambda x: torch.where(x > 0, x, 0.01 * x),
    }[act_type]
    for layer in (field.rgbnet[0], field.rgbnet[2][0]):
        x = activation(x @ layer.weight.T + layer.bias)
    colour = (x @ field.rgbnet[3].weight.T + field.rgbnet[3].bias).sigmoid()
    torch.testing.assert_close(field.colours(features, points, view, torch.tensor([0])), colour)


def test_colours_without_a_network():
    field = DirectMPIGO(*BOX, num_voxels=512, mpi_depth=8, rgbnet_dim=0)
    assert field.rgbnet is None
    assert tuple(field.k0.grid.shape[:2]) == (1, 3)
    assert not {"viewfreq", "posfreq"} & field.state_dict().keys()
    field.k0.grid.data[0] = torch.tensor([0.0, 2.0, -1.0])[:, None, None, None]
    rendered = field(*straight_rays(4))
    torch.testing.assert_close(rendered.raw_rgb[0], torch.tensor([0.0, 2.0, -1.0]).sigmoid())
    again = released_field(released_kwargs(field), field.state_dict())
    assert torch.equal(again.k0.grid, field.k0.grid)


def test_background_bounds_and_empty_rays():
    field = DirectMPIGO(*BOX, num_voxels=16**3, mpi_depth=16, fast_color_thres=1e-3)
    field.density.grid.data.fill_(-30)
    field.density.grid.data[..., 8] = 30
    origins, directions, viewdirs = straight_rays(4)
    rendered = field(origins, directions, viewdirs, bg=torch.eye(4)[:, :3])
    torch.testing.assert_close(rendered.depth, torch.full((4,), 8.5 / 16))
    field.density.grid.data.fill_(-30)
    rendered = field(origins, directions, viewdirs, bg=torch.eye(4)[:, :3])
    assert rendered.depth.tolist() == [0.0] * 4
    assert rendered.alphainv_last.tolist() == [1.0] * 4
    assert torch.equal(rendered.rgb_marched, torch.eye(4)[:, :3])
    assert not rendered.rgb_feature.any()
    field.density.grid.data.zero_()
    bounds = (torch.tensor([0.0, 0.2, 0.0, 0.9]), torch.tensor([1.0, 0.4, 0.0, 0.8]))
    assert field(origins, directions, viewdirs, bounds=bounds).ray_id.bincount(minlength=4).tolist() == [16, 4, 1, 0]


def test_growing_keeps_planes_and_free_space():
    field = DirectMPIGO(*BOX, num_voxels=8**3, mpi_depth=8, fast_color_thres=1e-2)
    field.density.grid.data.fill_(-20)
    field.density.grid.data[0, 0, 2, 5, 3] = 10
    field.update_occupancy_cache()
    marked = field.mask_cache.mask.nonzero()
    assert (marked.amin(0).tolist(), marked.amax(0).tolist()) == ([1, 4, 2], [3, 6, 4])
    old, shift = field.k0.grid, field.act_shift.grid.clone()
    field.scale_volume_grid(8 * 16 * 16)
    assert field.world_size == (16, 16, 8)
    assert field.k0.grid is not old
    assert tuple(field.k0.grid.shape) == (1, 9, 16, 16, 8)
    assert torch.equal(field.act_shift.grid, shift)
    assert 0 < int(field.mask_cache.mask.sum()) < 16 * 16 * 8 / 2
    assert DirectMPIGO(*BOX, **field.settings()).world_size == field.world_size


def test_free_space_of_the_released_code_leaves_the_shifts_out():
    field = DirectMPIGO(*BOX, num_voxels=16**3, mpi_depth=16, fast_color_thres=0.1, mask_counts_shift=False)
    field.density.grid.data[..., :8] = -6  # alone, 16 base steps of it are 4 % opaque; with the shifts, 0.02 %
    field.update_occupancy_cache()
    assert field.mask_cache.mask.flatten(0, 1).any(0).tolist() == [False] * 7 + [True] * 9
    assert DirectMPIGO(*BOX, **field.settings()).mask_counts_shift is False


def test_without_a_threshold_every_sample_is_there():
    field = DirectMPIGO(*BOX, num_voxels=16**3, mpi_depth=16)
    field.density.grid.data[..., 2:4] = 200
    field.density.grid.data[..., 5] = -200
    rendered = field(*straight_rays(3))
    assert rendered.ray_id.bincount().tolist() == [16] * 3
    assert bool((rendered.weights.view(3, 16)[:, 4:] == 0).all())  # nothing comes through
    field.fast_color_thres = 1e-6
    counted = field(*straight_rays(3))
    assert counted.ray_id.bincount().tolist() == [3] * 3


def test_free_space_follows_what_is_rendered():
    """A cell is free where density *and* shift leave it clear: the last planes are nearly opaque without density."""
    field = DirectMPIGO(*BOX, num_voxels=16**3, mpi_depth=16, fast_color_thres=0.1)
    field.update_occupancy_cache()
    opaque = [1 - 1 / (1 + math.exp(shift)) ** 16 for shift in field.act_shift.grid.flatten().tolist()]
    wanted = [any(alpha > 0.1 for alpha in opaque[max(k - 1, 0) : k + 2]) for k in range(16)]
    assert field.mask_cache.mask.all(0).all(0).tolist() == wanted
    assert field.mask_cache.mask.any(0).any(0).tolist() == wanted


def test_learns_a_plane():
    field = DirectMPIGO(*BOX, num_voxels=8**3, mpi_depth=8, rgbnet_width=16)
    origins, directions, viewdirs = straight_rays(200)
    target = torch.stack([origins[:, 0], origins[:, 1], -origins[:, 0]], -1) / 2 + 0.5
    parameters = [field.density.grid, field.k0.grid, *field.rgbnet.parameters()]
    optimizers = [MaskedAdam(parameters[:2], lr=0.1, skip_zero_grad=True), MaskedAdam(parameters[2:], lr=1e-2)]
    errors = []
    for _ in range(60):
        rendered = field(origins, directions, viewdirs)
        loss = (rendered.rgb_feature - target).square().mean()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < errors[0] / 20
