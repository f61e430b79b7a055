"""Coding of differences, and where a frame may change: by counts and by definition."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from perception.radiance.sparse_grid import SparseGrid
from projects.streamrf.delta import FieldState, StreamError, decode_frame, encode_frame
from projects.streamrf.field import grid_of, state_of, take_state
from projects.streamrf.guidance import PilotChange, guide, narrow_band, take_over_from_pilot, upsample_mask
from projects.streamrf.settings import FrameSettings, first_pilot, log_linear_rate

SIDE = 16
RECORDED = torch.load(Path(__file__).parents[2] / "data/reference/streamrf/sparse_grid.pt", weights_only=True)


def some_state(seed, share=0.3, side=SIDE):
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(side, side, side, generator=generator) < share
    rows = int(active.sum())
    return FieldState(
        active,
        10 * torch.rand(rows, 1, generator=generator),
        torch.randn(rows, 27, generator=generator) * 0.2,
        torch.tensor([1.2, 1.0, 0.8]),
        torch.zeros(3),
    )


def a_little_later(state, seed=5):
    """Some voxels added, some removed, some changed, a few in density alone."""
    generator = torch.Generator().manual_seed(seed)
    grid = grid_of(state)
    noise = torch.rand(state.active.shape, generator=generator)
    active = (state.active & (noise > 0.05)) | (noise > 0.98)
    grid._keep(active, state.active)
    moved = torch.rand(len(grid.sh), 1, generator=generator) < 0.2
    grid.sh.data += moved * torch.randn(grid.sh.shape, generator=generator)
    new = ~state.active[active]
    grid.sh.data[new] += 0.1 * torch.rand(int(new.sum()), 1, generator=generator)
    grid.density.data += torch.rand(len(grid.sh), 1, generator=generator)
    return state_of(grid)


def assert_same(first, second):
    for name in ("active", "density", "sh", "radius", "center"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name


@pytest.mark.parametrize("half", [False, True])
def test_decoding_gives_what_was_kept_and_nothing_else(half):
    before = some_state(0).stored(half)
    after = a_little_later(before)
    delta = encode_frame(3, before, after, keep_threshold=1.5, prune_threshold=1.0, half=half)
    decoded = decode_frame(before, delta)
    common = before.active & after.active
    change = (after.sh[before.active[after.active]] - before.sh[after.active[before.active]]).abs().sum(1)
    assert torch.equal(delta.changed, change > 1.5)
    added = after.active & ~before.active
    worth = torch.zeros_like(added)
    worth[after.active] = after.sh.abs().sum(1) >= 1.0
    assert 0 < int((added & worth).sum()) < int(added.sum())
    assert torch.equal(decoded.active, common | (added & worth))
    # Values, voxel by voxel.
    old, new, got = (grid_of(state) for state in (before, after, decoded))
    expected = torch.where(common[..., None], old_values(old), 0)
    changed = torch.zeros_like(common)
    changed[common] = delta.changed
    expected = torch.where((changed | (added & worth))[..., None], old_values(new), expected)
    tolerance = 2.0**-11 if half else 0.0
    torch.testing.assert_close(old_values(got), expected, rtol=tolerance, atol=2.0**-24 if half else 0.0)
    if half:
        assert torch.equal(decoded.sh, decoded.sh.half().float())
        assert {delta.added_density.dtype, delta.changed_density.dtype} == {torch.float16}
    # Bits of both masks, 56 bytes a voxel.
    numbers = len(delta.added_sh) + len(delta.changed_sh)
    assert delta.raw_bytes == SIDE**3 // 8 + math.ceil(len(delta.changed) / 8) + 56 * numbers


def old_values(grid):
    """All 28 numbers of each voxel, 0 where it is empty: (X, Y, Z, 28)."""
    table = torch.cat([grid.density, grid.sh], 1).detach()
    return torch.where((grid.links >= 0)[..., None], table[grid.links.clamp(min=0).long()], 0)


def test_a_field_that_stays_costs_nothing():
    state = some_state(1).stored(True)
    delta = encode_frame(1, state, state, keep_threshold=1.0, prune_threshold=0.2)
    assert len(delta.added_sh) == len(delta.changed_sh) == 0
    assert_same(decode_frame(state, delta), state)


def test_a_higher_threshold_never_keeps_more():
    before = some_state(2)
    after = a_little_later(before)
    sizes = [
        encode_frame(1, before, after, keep_threshold=value, prune_threshold=0.2).raw_bytes
        for value in (0.0, 0.5, 2.0, 8.0, 1e9)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


def test_a_delta_of_another_field_is_refused():
    before = some_state(3)
    delta = encode_frame(7, before, a_little_later(before), keep_threshold=1.0, prune_threshold=0.2)
    with pytest.raises(StreamError, match="frame 7 builds on a field with"):
        decode_frame(some_state(4), delta)
    with pytest.raises(StreamError, match="frame 7 is of a grid of"):
        decode_frame(some_state(4, side=8), delta)
    with pytest.raises(StreamError, match="sh must be"):
        replace(before, sh=before.sh[1:])


def test_a_base_keeps_its_densities_and_rounds_its_coefficients_as_the_released_files_do():
    state = some_state(7)
    stored = state.stored(True)
    assert torch.equal(stored.density, state.density)
    assert torch.equal(stored.sh, state.sh.half().float())
    assert not torch.equal(stored.sh, state.sh)
    assert torch.equal(state.stored(False).sh, state.sh)
    stepped = state.stored(True, 2.0**-4).sh
    assert torch.equal(stepped, (state.sh * 16).round() / 16)


def test_great_densities_of_frames_stay_finite_in_half_precision():
    before, after = some_state(5), some_state(5)
    after.density[0] = 1e6
    after.sh[0] += 1
    delta = encode_frame(1, before, after, keep_threshold=1.0, prune_threshold=0.2)
    assert float(decode_frame(before, delta).density[0]) == 65504


def test_a_field_and_its_state_are_the_same():
    state = some_state(6)
    grid = grid_of(state)
    assert_same(state_of(grid), state)
    other = SparseGrid.full((4, 4, 4), (1.0, 1.0, 1.0))
    parameter = other.sh
    take_state(other, state)
    assert other.sh is parameter
    assert_same(state_of(other), state)


def test_the_band_of_a_ball():
    places = torch.stack(torch.meshgrid(*(torch.arange(36.0) - 17.5,) * 3, indexing="ij"), -1)
    ball = places.norm(dim=-1) <= 14

    def pooled(mask, radius):
        return torch.nn.functional.max_pool3d(mask[None].float(), 2 * radius + 1, 1, radius)[0].bool()

    wide, core = pooled(ball, 2), ~pooled(~ball, 6)
    band = narrow_band(ball, 2)
    assert torch.equal(band, wide & ~core)
    assert int(band.sum()) == int(wide.sum()) - int(core.sum())


def test_upsampled_masks_grow_by_less_than_a_voxel():
    mask = torch.zeros(5, 5, 5, dtype=torch.bool)
    mask[2, 2, 2] = True
    twice = upsample_mask(mask, (10, 10, 10))
    assert int(twice.sum()) == 4**3  # two voxels, and one more to each side
    assert torch.equal(upsample_mask(mask, (5, 5, 5)), mask)


def test_a_pilot_hands_over_what_it_added_and_removed():
    pilot_before = some_state(7, side=8)
    pilot_after = a_little_later(pilot_before)
    delta = encode_frame(1, pilot_before, pilot_after, keep_threshold=1.5, prune_threshold=0.0, half=False)
    change = PilotChange.of(pilot_before, delta)
    assert int(change.changed.sum()) == int(delta.changed.sum()) + len(delta.added_sh)
    assert torch.equal(change.removed, pilot_before.active & ~pilot_after.active)
    pilot = grid_of(decode_frame(pilot_before, delta))
    full = SparseGrid.full((16, 16, 16), (1.2, 1.0, 0.8))
    wide = change.upsampled(full.size)
    take_over_from_pilot(full, pilot, wide)
    density = full.density.detach()[:, 0].view(16, 16, 16)
    assert not density[wide.removed].any()  # wins over what was added
    kept = ~wide.added & ~wide.removed
    assert (density[kept] == 0.1).all()
    new = (wide.added & ~wide.removed).nonzero()
    expected, _ = pilot.sample((new + 0.5) / 2 - 0.5, grid_coordinates=True)
    torch.testing.assert_close(density[tuple(new.T)][:, None], expected.detach())


def test_specks_lead_nowhere():
    changed = torch.zeros(16, 16, 16, dtype=torch.bool)
    changed[2, 2, 2] = True
    changed[8:11, 8:11, 8:11] = True  # its inner voxel is left, two layers are put around it
    assert int(guide(changed).sum()) == 5**3


def test_rates_as_recorded():
    rates = RECORDED["outputs"]["lr"]
    density = [log_linear_rate(step, 30, 0.05, 250_000, 15_000) for step in (0, 15_000, 128_000)]
    recorded = rates["sigma_init(30,0.05,delay15000,0.01,250000)"]
    assert density == pytest.approx([recorded[0], recorded[2], recorded[4]])
    assert density[0] == pytest.approx(0.3)
    assert density[1] == pytest.approx(20.438, abs=1e-3)
    assert density[2] == pytest.approx(1.134, abs=1e-3)
    assert log_linear_rate(38_400, 1e-2, 5e-6, 250_000) == pytest.approx(3.111e-3, abs=1e-6)
    assert log_linear_rate(7, 0.0, 0.0, 300, 10) == 0
    flat = [log_linear_rate(step, 1e-2, 3e-3, 300) for step in (0, 150, 300, 500)]
    assert flat == pytest.approx(rates["sh_full_n3dv(1e-2,3e-3,300)"])


def test_the_first_pilot_trains_ten_times_as_long():
    settings = first_pilot(FrameSettings(iters=1000, lr_steps=1000))
    assert (settings.iters, settings.lr_steps) == (10_000, 10_000)
