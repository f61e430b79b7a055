"""Samples along rays: the fast walk through masked space finds exactly the samples of the plain one."""

import itertools

import pytest
import torch

from perception.ops import backend
from perception.ops import sample_rays as operator
from perception.ops.ray_aabb import ray_aabb
from perception.radiance.grids import MaskGrid, dilate
from perception.radiance.sampling import sample_occupied, sample_rays


def random_case(generator: torch.Generator):
    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(*shape, generator=generator)

    low = uniform(-2, 0, 3)
    high = low + uniform(0.2, 3, 3)
    count = 24
    origins = (low + high) / 2 + uniform(-3, 3, count, 3)
    origins[:4] = low + (high - low) * uniform(0.1, 0.9, 4, 3)  # some start inside
    directions = uniform(-1, 1, count, 3)
    directions[4:10][uniform(0, 1, 6, 3) < 0.4] = 0  # some are parallel to faces
    directions[(directions == 0).all(1)] = torch.tensor([1.0, 0, 0])
    aimed = low + (high - low) * uniform(0, 1, 10, 3) - origins[10:20]
    directions[10:20] = aimed * uniform(0.1, 2, 10, 1)
    shape = torch.randint(1, 30, (3,), generator=generator).clamp(min=2).tolist()
    mask = torch.rand(shape, generator=generator) < float(uniform(0, 1, 1)) ** 3
    stepdist = float(10 ** uniform(-2.2, 0.3, 1))
    near = float(uniform(0, 0.5, 1))
    return origins, directions, low, high, MaskGrid(mask, low, high), near, stepdist


def test_masked_walk_equals_plain_walk_and_look_up():
    generator, found = torch.Generator().manual_seed(3), 0
    for _ in range(200):
        origins, directions, low, high, mask, near, stepdist = random_case(generator)
        every = sample_rays(origins, directions, low, high, near=near, stepdist=stepdist)
        keep = mask(every.points)
        fast = sample_occupied(origins, directions, low, high, mask, near=near, stepdist=stepdist)
        assert torch.equal(fast.ray_id, every.ray_id[keep])
        assert torch.equal(fast.step_id, every.step_id[keep])
        assert torch.equal(fast.points, every.points[keep])
        found += len(fast.points)
    assert found > 5000


def test_free_space_is_not_sampled(monkeypatch):
    mask = torch.zeros(128, 128, 128, dtype=torch.bool)
    mask[60:64, 60:64, 60:64] = True
    low, high = torch.full((3,), -1.0), torch.full((3,), 1.0)
    grid = MaskGrid(mask, low, high)
    origins = torch.tensor([[0.0, 0.0, 3.0]]).expand(500, 3)
    directions = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * 0.3 + torch.tensor([0.0, 0, -1])
    looked_up = []
    nearest_cell, dilated = operator.round_half_away, MaskGrid.may_touch
    monkeypatch.setattr(operator, "round_half_away", lambda xyz: looked_up.append(len(xyz)) or nearest_cell(xyz))
    monkeypatch.setattr(MaskGrid, "may_touch", lambda s, xyz, r: looked_up.append(len(xyz)) or dilated(s, xyz, r))
    box = {"near": 0.0, "stepdist": 0.5 * 2 / 128}
    with backend.use("reference"):
        sample_occupied(origins, directions, low, high, grid, **box)
    every = len(sample_rays(origins, directions, low, high, **box).points)
    assert every > 50_000
    assert 0 < sum(looked_up) < 0.1 * every


def test_rays_and_boxes():
    origins = torch.tensor([[-3.0, 0.5, 0.5], [0.5, 0.5, 0.5], [-3.0, 5.0, 0.5], [-3.0, 0.5, 0.5]])
    directions = torch.tensor([[2.0, 0, 0], [0, 0, 1.0], [1.0, 0, 0], [-1.0, 0, 0]])
    t_min, t_max = ray_aabb(origins, directions, torch.zeros(3), torch.ones(3), near=0.1)
    assert t_min[:2].tolist() == pytest.approx([1.5, 0.1])
    assert t_max[:2].tolist() == pytest.approx([2.0, 0.5])
    samples = sample_rays(origins, directions, torch.zeros(3), torch.ones(3), near=0.1, stepdist=0.3)
    assert set(samples.ray_id.tolist()) == {0, 1}
    torch.testing.assert_close(samples.points[samples.ray_id == 0][:, 0], torch.tensor([0.0, 0.3, 0.6, 0.9]))
    torch.testing.assert_close(samples.points[samples.ray_id == 1][:, 2], torch.tensor([0.6, 0.9]))


def test_halves_round_away_from_zero():
    grid = MaskGrid(
        torch.tensor([True, False, True]).view(3, 1, 1).expand(3, 2, 2), torch.zeros(3), torch.full((3,), 2.0)
    )
    x = torch.tensor([0.49999997, 0.5, 1.5, -0.49, -0.5, 2.4, 2.5])
    look_up = grid(torch.stack([x, torch.zeros(7), torch.zeros(7)], -1))
    assert look_up.tolist() == [True, False, True, True, False, True, False]


def test_dilation():
    generator = torch.Generator().manual_seed(1)
    for reach in itertools.product((0, 1, 5), repeat=3):
        mask = torch.rand(9, 8, 11, generator=generator) < 0.01
        expected = torch.zeros_like(mask)
        for i, j, k in mask.nonzero().tolist():
            a, b, c = ((max(0, v - r), v + r + 1) for v, r in zip((i, j, k), reach))
            expected[slice(*a), slice(*b), slice(*c)] = True
        assert torch.equal(dilate(mask, reach), expected)


def test_dilated_mask_follows_changes():
    grid = MaskGrid(torch.zeros(8, 8, 8, dtype=torch.bool), torch.zeros(3), torch.ones(3))
    centre = torch.full((1, 3), 0.5)
    assert not grid.may_touch(centre, 0.2).any()
    grid.mask[4, 4, 4] = True
    assert grid.may_touch(centre, 0.2).all()


def test_strides_end_in_single_samples():
    assert list(operator.STRIDES) == sorted(operator.STRIDES, reverse=True)
    assert all(first % second == 0 for first, second in itertools.pairwise((*operator.STRIDES, 1)))
