"""The field as a whole: parameters, growing, masks, the steps between stages, and that it learns."""

import math

import pytest
import torch
import torch.nn.functional as F

from perception.engine.errors import UserError
from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.dvgo_settings import FineSettings
from perception.radiance.dvgo_stages import (
    clear_near_cameras,
    count_views,
    frustum_bounds,
    inherited_mask,
    occupied_bounds,
    progressive_resolutions,
    start_fine,
)
from perception.radiance.losses import dvgo_losses
from perception.radiance.optim import MaskedAdam

BOX = ([-1.0, -1, -1], [1.0, 1, 1])


def field(voxels=8**3, **changes) -> DirectVoxGO:
    settings = {"num_voxels": voxels, "num_voxels_base": voxels, "alpha_init": 1e-2, "fast_color_thres": 1e-4}
    return DirectVoxGO(*BOX, **{**settings, **changes})


def wall_rays(count=50):
    """Rays along -z through the box, of various lengths of direction."""
    xy = torch.rand(count, 2) * 1.6 - 0.8
    rays_o = torch.cat([xy, torch.full((count, 1), 3.0)], 1)
    rays_d = torch.tensor([[0.0, 0, -1]]) * (0.5 + torch.rand(count, 1))
    return rays_o, rays_d, F.normalize(rays_d, dim=-1)


def test_network_has_the_papers_size():
    fine = field(rgbnet_dim=12)
    assert sum(parameter.numel() for parameter in fine.rgbnet.parameters()) == 22_019
    assert torch.equal(fine.rgbnet[-1].bias, torch.zeros(3))
    assert {name for name, _ in fine.rgbnet.named_parameters()} >= {"0.weight", "2.0.weight", "3.weight"}


def test_resolution_rule():
    made = DirectVoxGO([0, 0, 0], [2.0, 1, 1], num_voxels=160**3, num_voxels_base=100**3, alpha_init=1e-2)
    side = (2 / 160**3) ** (1 / 3)
    assert made.world_size == (math.floor(2 / side), math.floor(1 / side), math.floor(1 / side))
    assert float(made.voxel_size_ratio) == pytest.approx(100 / 160)
    assert progressive_resolutions(160**3, 4) == [256_000, 512_000, 1_024_000, 2_048_000, 4_096_000]
    with pytest.raises(ValueError, match="volume"):
        DirectVoxGO([0, 0, 0], [1.0, 0, 1], num_voxels=8, num_voxels_base=8, alpha_init=1e-2)


def test_growing_resamples_grids_and_mask():
    fine = field(rgbnet_dim=12)
    fine.density.grid.data.normal_(0, 6)
    fine.k0.grid.data.normal_()
    fine.mask_cache.mask[:4] = False
    old, points = fine.k0.grid.detach().clone(), fine.density.grid.detach().clone()
    fine.scale_volume_grid(16**3)
    assert fine.world_size == (16, 16, 16)
    torch.testing.assert_close(
        fine.k0.grid, F.interpolate(old, size=(16, 16, 16), mode="trilinear", align_corners=True)
    )
    grown = F.interpolate(points, size=(16, 16, 16), mode="trilinear", align_corners=True)
    torch.testing.assert_close(fine.density.grid, grown)
    assert fine.mask_cache.mask.shape == (16, 16, 16)
    assert not fine.mask_cache.mask[:7].any()
    assert float(fine.voxel_size_ratio) == pytest.approx(0.5, rel=1e-3)


def test_occupancy_update_only_removes_what_is_clear():
    fine = field(align_corners=True, fast_color_thres=1e-3)
    fine.density.grid.data.fill_(-20)
    fine.density.grid.data[0, 0, 5, 5, 5] = 10
    fine.mask_cache.mask[6] = False
    fine.update_occupancy_cache()
    assert fine.mask_cache.mask.nonzero().tolist() == [[i, j, k] for i in (4, 5) for j in (4, 5, 6) for k in (4, 5, 6)]


def test_opaque_wall_has_its_true_distance():
    made = field(64**3)
    made.density.grid.data.fill_(-50)
    made.density.grid.data[..., :32] = 50  # everything below z = 0
    rays_o, rays_d, viewdirs = wall_rays()
    outputs = made(rays_o, rays_d, viewdirs, near=0.0)
    torch.testing.assert_close(outputs["distance"], torch.full((50,), 3.0), atol=0.05, rtol=0)
    torch.testing.assert_close(outputs["alphainv_last"], torch.zeros(50), atol=1e-3, rtol=0)
    missing = made(rays_o + 5, rays_d, viewdirs, near=0.0, bg=0.25)
    torch.testing.assert_close(missing["rgb_marched"], torch.full((50, 3), 0.25))


def test_diffuse_part_bypasses_the_network():
    made = field(rgbnet_dim=12, rgbnet_direct=False, rgbnet_width=16)
    assert made.rgbnet[0].in_features == 27 + 9
    with torch.no_grad():
        made.rgbnet[-1].weight.zero_()
    features, ray_id = torch.randn(5, 12), torch.zeros(5, dtype=torch.long)
    torch.testing.assert_close(made.colours(features, torch.eye(3)[:1], ray_id), features[:, :3].sigmoid())


def test_bounds_of_viewing_frusta():
    origins, ahead = torch.tensor([[0.0, 0, 4], [4, 0, 0]]), torch.tensor([[0.0, 0, -1], [-1, 0, 0]])
    views = [(number, origins[number, None], ahead[number, None] * 2, ahead[number, None]) for number in (0, 1)]
    low, high = frustum_bounds(views, near=1.0, far=6.0)
    assert low.tolist() == [-2, 0, -2]
    assert high.tolist() == [3, 0, 3]


def test_views_of_voxels_are_counted_once_each():
    made = field(4**3, align_corners=True)
    rays_o, rays_d, viewdirs = wall_rays(2000)
    left = rays_o[:, 0] < -0.5
    views = [(0, rays_o[:1000], rays_d[:1000], viewdirs[:1000]), (0, rays_o[1000:], rays_d[1000:], viewdirs[1000:])]
    views.append((1, rays_o[left], rays_d[left], viewdirs[left]))
    count = count_views(made, views, near=0.0, stepsize=0.5)
    assert count[0].unique().tolist() == [2]
    assert count[2].unique().tolist() == [1]


@pytest.mark.parametrize("align_corners", [False, True])
def test_views_of_voxels_are_counted_as_released(align_corners):
    made = DirectVoxGO(
        [-1, -1.1, -0.9],
        [1, 1, 1.2],
        num_voxels=10**3,
        num_voxels_base=10**3,
        alpha_init=1e-2,
        align_corners=align_corners,
    )
    views, expected = [], torch.zeros(made.world_size)
    for number in range(3):
        origin = F.normalize(torch.randn(3), dim=0) * 3
        rays_d = 0.8 * torch.randn(150, 3) - origin  # some pass by the box, close or far
        views.append((number, origin.expand_as(rays_d), rays_d, F.normalize(rays_d, dim=-1)))
        # All samples of the length of the diagonal, also behind the box; its outermost voxels reach out of it.
        ends = torch.stack([(made.xyz_min - origin) / rays_d, (made.xyz_max - origin) / rays_d])
        first = ends.amin(0).amax(-1).clamp(min=0.2)
        steps = torch.arange(int((torch.tensor(made.world_size) + 1.0).norm() / 0.5) + 1) * 0.5 * made.voxel_size
        points = origin + rays_d[:, None] * (first[:, None] + steps / rays_d.norm(dim=-1, keepdim=True))[..., None]
        unit = (points - made.xyz_min) / (made.xyz_max - made.xyz_min)
        grid = torch.zeros(1, 1, *made.world_size, requires_grad=True)
        where = (unit.flip(-1) * 2 - 1)[None, None]
        F.grid_sample(grid, where, align_corners=align_corners).sum().backward()
        expected += grid.grad[0, 0] > 1
    assert torch.equal(count_views(made, views, near=0.2, stepsize=0.5), expected)


def test_steps_from_coarse_to_fine():
    coarse = field(16**3, align_corners=True)
    clear_near_cameras(coarse, torch.tensor([[1.0, 1, 1]]), near=0.3)
    assert int((coarse.density.grid == -100).sum()) == 17  # i*i + j*j + k*k <= 5 steps from the corner
    coarse.density.grid.data[0, 0, 4:8, 4:8, 4:8] = 5
    low, high = occupied_bounds(coarse, threshold=0.1, enlarge=1.0)
    torch.testing.assert_close(low, torch.full((3,), -1 + 4 * 2 / 15))
    torch.testing.assert_close(high, torch.full((3,), -1 + 7 * 2 / 15))
    points = torch.tensor([[-1 + i * 2 / 15] * 3 for i in (2, 3, 8, 9)])
    assert inherited_mask(coarse, points, threshold=0.1).tolist() == [False, True, True, False]
    coarse.density.grid.data.fill_(-50)
    with pytest.raises(ValueError, match="empty"):
        occupied_bounds(coarse, threshold=0.1)
    coarse.density.grid.data[0, 0, 4:8, 4:8, 5] = 5  # what a stage that was too short has found
    with pytest.raises(UserError, match=r"16 in one plane and span no volume: .* train the coarse stage for longer"):
        start_fine(coarse, FineSettings())


@pytest.mark.slow
def test_learns_a_coloured_ball():
    def truth(rays_o, viewdirs):
        along = -(rays_o * viewdirs).sum(-1)
        closest = rays_o + along[:, None] * viewdirs
        behind = 0.36 - (closest**2).sum(-1)
        hit = behind > 0
        surface = rays_o + (along - behind.clamp(min=0).sqrt())[:, None] * viewdirs
        return torch.where(hit[:, None], 0.5 + 0.6 * surface, 1.0)

    def batch(count):
        rays_o = 4 * F.normalize(torch.randn(count, 3), dim=-1)
        viewdirs = F.normalize(torch.rand(count, 3) * 1.6 - 0.8 - rays_o, dim=-1)
        return rays_o, viewdirs, truth(rays_o, viewdirs)

    made = field(24**3, rgbnet_dim=6, rgbnet_width=32)
    made.act_shift -= 1
    optimizers = [
        MaskedAdam([made.density.grid], lr=0.2, skip_zero_grad=True),
        MaskedAdam([made.k0.grid], lr=0.1, skip_zero_grad=True),
        MaskedAdam(made.rgbnet.parameters(), lr=3e-3),
    ]
    for _ in range(150):
        rays_o, viewdirs, target = batch(400)
        outputs = made(rays_o, viewdirs, viewdirs, near=1.0)
        losses = dvgo_losses(outputs, target, weight_entropy_last=1e-3, weight_rgbper=0.01)
        for optimizer in optimizers:
            optimizer.zero_grad()
        sum(losses.values()).backward()
        for optimizer in optimizers:
            optimizer.step()
    with torch.no_grad():
        rays_o, viewdirs, target = batch(3000)
        error = (made(rays_o, viewdirs, viewdirs, near=1.0)["rgb_marched"] - target).square().mean()
    assert -10 * math.log10(float(error)) > 21


def test_rays_end_where_they_are_told_to():
    """Bounds are distances from the origin, whatever the length of the direction; without a cut nothing changes."""
    made = field(16**3)
    made.density.grid.data.fill_(8)
    rays_o, rays_d, viewdirs = wall_rays()  # the box lies between 2 and 4 from their origins

    def cut(low, high):
        bounds = torch.full((50,), low), torch.full((50,), high)
        return made(rays_o, rays_d, viewdirs, near=0, bounds=bounds)

    whole = made(rays_o, rays_d, viewdirs, near=0)
    everything = cut(0.0, 9.0)
    assert all(torch.equal(everything[name], value) for name, value in whole.items())
    for low, high in ((0.0, 1.9), (4.1, 9.0), (1e10, 1e10)):  # the last is a box that is missed
        assert torch.equal(cut(low, high)["alphainv_last"], torch.ones(50))
    inside = cut(2.5, 3.0)
    steps = inside["step_id"].float() * 0.5 * float(made.voxel_size)
    assert bool(((steps >= 0.5 - 1e-5) & (steps <= 1 + 1e-5)).all())
    beginning = inside["distance"] / (1 - inside["alphainv_last"])
    assert bool(((beginning > 2.49) & (beginning < 2.7)).all())  # opaque from where it is cut
