"""Codebook, voxel classes, 8-bit numbers, groups: against the recorded original, formulas and loops."""

import math
from pathlib import Path

import pytest
import torch

from perception.geometry.rays import pixel_rays
from perception.ops.trilinear import trilinear_scatter
from perception.radiance.dvgo import DirectVoxGO
from projects.vqrf.codebook import VectorQuantizer, group_indices, synchronise_groups
from projects.vqrf.compression import Scales, compress_field, decode_grids, field_of, load_into
from projects.vqrf.pruning import VoxelClasses, importance_scores, importance_threshold, split_voxels
from projects.vqrf.quantization import quantize_int8
from tests.projects.vqrf.cases import RENDER, compressed_field, fine_field

RECORDED = Path(__file__).parents[2] / "data/reference/vqrf"
REFERENCE = torch.load(RECORDED / "vq_ema.pt", weights_only=True)
IMPORTANCE = torch.load(RECORDED / "importance_prune.pt", weights_only=True)


def test_codebook_learns_as_recorded():
    quantizer = VectorQuantizer(12, 64)
    quantizer.load_state_dict(REFERENCE["state_dict"])
    for step in REFERENCE["outputs"]["steps"]:
        codes = quantizer.assign(step["x"])
        assert torch.equal(codes, step["ind"])
        weights = step["w"] * len(step["w"]) / step["w"].sum()
        quantizer._average(step["x"], weights, codes)
        torch.testing.assert_close(quantizer.embed, step["embed_after_ema"][0], atol=1e-5, rtol=0)
        torch.testing.assert_close(quantizer._codebook.cluster_size, step["cluster_size"], atol=1e-5, rtol=1e-5)
        replaced, source = quantizer.expire(step["x"], step["w"])
        assert sorted(replaced.tolist()) == sorted(step["replace_index"].tolist())
        assert sorted(source.tolist()) == sorted(step["source_index"].tolist())
        torch.testing.assert_close(quantizer.embed, step["embed_after_expire"][0], atol=1e-5, rtol=0)


def test_update_is_average_then_expiry():
    step = REFERENCE["outputs"]["steps"][0]
    quantizer = VectorQuantizer(12, 64).train()
    quantizer.load_state_dict(REFERENCE["state_dict"])
    before = quantizer.embed.clone()
    result = quantizer(step["x"], step["w"])
    assert torch.equal(result.codes, step["ind"])
    torch.testing.assert_close(result.quantized, before[step["ind"]])
    torch.testing.assert_close(quantizer.embed, step["embed_after_expire"][0], atol=1e-5, rtol=0)
    frozen = quantizer.eval().embed.clone()
    quantizer(step["x"], step["w"])
    assert torch.equal(quantizer.embed, frozen)


def test_initial_codewords_are_small_and_uniform():
    bound = math.sqrt(6 / (4096 * 12))
    embed = VectorQuantizer(12, 4096).embed
    assert float(embed.abs().max()) <= bound
    assert float(embed.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_codewords_find_separated_clusters():
    generator = torch.Generator().manual_seed(0)
    centres = 0.3 * torch.randn(64, 12, generator=generator)  # about 1.5 apart
    points = centres.repeat(50, 1) + 0.01 * torch.randn(3200, 12, generator=generator)
    torch.manual_seed(0)
    quantizer = VectorQuantizer(12, 64, k_expire=1)
    for _ in range(150):
        drawn = torch.randint(3200, (3200,), generator=generator)
        quantizer.update(points[drawn], torch.rand(3200, generator=generator))
    found = torch.cdist(centres, quantizer.embed).amin(1) < 0.1
    assert float(found.float().mean()) >= 0.9


def test_ties_take_the_lowest_codeword():
    quantizer = VectorQuantizer(2, 4, k_expire=0)
    quantizer.embed[:] = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0], [0, 1.0]])
    assert quantizer.assign(torch.tensor([[0.0, 0], [1, 0], [0, 2]])).tolist() == [0, 0, 2]
    assert quantizer.assign(torch.zeros(0, 2)).shape == (0,)


def test_classes_hold_the_shares_they_should():
    scores = torch.rand(20_000) ** 6
    scores[torch.rand(20_000) < 0.5] = 0
    classes = split_voxels(scores, 0.999, 0.6)
    total = scores.sum()
    assert 0.9985 < float(scores[classes.non_prune].sum() / total) <= 0.9991
    assert 0.595 < float(scores[classes.keep].sum() / total) <= 0.601
    assert not (classes.keep & ~classes.non_prune).any()
    assert torch.equal(classes.vq ^ classes.keep, classes.non_prune)
    everything = split_voxels(scores, 1.0, 0.0)
    assert everything.non_prune.all()
    assert not everything.keep.any()


def test_threshold_equals_its_definition():
    scores = torch.tensor([0.0, 5, 1, 3, 1])
    # ascending 0 1 1 3 5, running sums 0 1 2 5 10: beyond 1 - q = 0.4 of the sum first at 3
    assert float(importance_threshold(scores, 0.6)) == pytest.approx(3, abs=1e-5)
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            importance_threshold(scores, wrong)
    with pytest.raises(ValueError, match="renders nothing"):
        split_voxels(torch.zeros(5))
    with pytest.raises(ValueError, match="must not exceed"):
        split_voxels(scores, 0.5, 0.9)


def test_eight_bits():
    numbers = torch.randn(5000, 12) * 0.7 + 0.3
    packed = quantize_int8(numbers)
    assert packed.scale == pytest.approx(float(numbers.std()) / 15, rel=1e-6)
    assert packed.zero_point == 0  # the mean in value units, rounded
    assert quantize_int8(numbers + 40).zero_point == 40
    error = (packed.dequantize() - numbers).abs()
    inside = packed.values.abs() < 127
    assert float(error[inside].max()) <= packed.scale / 2 * 1.0001
    noise = 10 * math.log10(float(numbers.var() / error[inside].square().mean()))
    assert noise == pytest.approx(34.3, abs=0.1)
    again = quantize_int8(packed.dequantize(), (packed.scale, packed.zero_point))
    assert torch.equal(again.values, packed.values)


@pytest.mark.parametrize("numbers", [torch.zeros(0), torch.tensor([2.5]), torch.full((7,), -3.0), torch.zeros(4)])
def test_eight_bits_without_a_spread(numbers):
    restored = quantize_int8(numbers).dequantize()
    torch.testing.assert_close(restored, numbers, rtol=1e-6, atol=0)


def test_importance_is_the_sum_of_splatted_weights():
    field = fine_field()
    field.mask_cache.mask[:2] = False
    rays_o = torch.tensor([[0.0, 0, 3]]).repeat(300, 1)
    rays_d = torch.randn(300, 3) * 0.2 + torch.tensor([0.0, 0, -1])
    views = [(0, rays_o[:100], rays_d[:100], rays_d[:100]), (1, rays_o[100:], rays_d[100:], rays_d[100:])]
    scores = importance_scores(field, views, near=0.2, stepsize=0.5)
    corners, weights = field.ray_weights(rays_o, rays_d, near=0.2, stepsize=0.5)
    assert float(scores.min()) >= 0
    torch.testing.assert_close(scores, trilinear_scatter(weights[:, None], corners)[:, 0])
    inside = corners.weight.sum(1) > 1 - 1e-5
    torch.testing.assert_close(scores.sum(), weights[inside].sum() + (corners.weight.sum(1) * weights)[~inside].sum())
    assert float(scores.sum()) == pytest.approx(float(weights.sum()), rel=0.05)


def recorded_scores() -> torch.Tensor:
    """Scores (V,) of the recorded field and its four cameras."""
    meta, inputs, state = IMPORTANCE["meta"], IMPORTANCE["inputs"], IMPORTANCE["state_dict"]
    field = DirectVoxGO(**meta["ctor"], align_corners=False)
    missing, unexpected = field.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith(("k0.grid", "rgbnet.")) for name in missing)  # colours do not matter
    views = []
    for number, pose in enumerate(inputs["c2w"]):
        rays_o, rays_d = (rays.reshape(-1, 3) for rays in pixel_rays(9, 9, inputs["K"].float(), pose))
        views.append((number, rays_o, rays_d, rays_d / rays_d.norm(dim=-1, keepdim=True)))
    return importance_scores(field, views, near=meta["render_kwargs"]["near"], stepsize=0.5)


def test_importance_is_as_recorded():
    """Samples that rendering leaves out do not count: with them 1728 voxels would remain."""
    scores, expected = recorded_scores(), IMPORTANCE["outputs"]["importance"].flatten()
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
    assert int(split_voxels(scores, 0.999, 0.6).non_prune.sum()) == 1719


@pytest.mark.parametrize("case", IMPORTANCE["outputs"]["masks"])
def test_classes_are_as_recorded(case):
    prune, keep = (float(share) for share in case.removeprefix("prune").split("_include"))
    scores, expected = recorded_scores(), IMPORTANCE["outputs"]["masks"][case]
    released = split_voxels(scores, prune, keep, released_last=True)
    assert torch.equal(released.non_prune, expected["non_prune"])
    assert torch.equal(released.keep, expected["keep"])
    classes = split_voxels(scores, prune, keep)
    assert torch.equal(classes.non_prune, released.non_prune)
    assert torch.equal(classes.keep, released.keep if keep else torch.zeros_like(released.keep))


def naive_groups(k0, groups, codebook, counted):
    """The released synchronisation, group by group."""
    k0, codebook = k0.clone(), codebook.clone()
    for code in range(len(codebook)):
        members = (groups == code) & counted
        if members.any():
            codebook[code] = k0[members].mean(0)
        elif counted.all() and code <= int(groups.max()):
            codebook[code] = 0  # a mean over no voxel, as `torch_scatter` has it
        k0[members] = codebook[code]
    return k0, codebook


@pytest.mark.parametrize("include_pruned", [False, True])
def test_groups_move_together(include_pruned):
    non_prune = torch.rand(400) < 0.6
    classes = VoxelClasses(non_prune, non_prune & (torch.rand(400) < 0.2))
    k0, codebook = torch.randn(400, 12), torch.randn(16, 12)
    k0[~non_prune] = 0
    groups = group_indices(classes, torch.randint(0, 14, (400,)), 16)  # two codewords are not used
    assert len(groups[classes.keep].unique()) == int(classes.keep.sum())
    counted = torch.ones_like(non_prune) if include_pruned else non_prune
    expected = naive_groups(k0, groups, codebook, counted)
    synchronise_groups(k0, groups, codebook, None if include_pruned else non_prune)
    torch.testing.assert_close(k0, expected[0])
    torch.testing.assert_close(codebook, expected[1])
    assert bool((k0[~non_prune] != 0).any()) == include_pruned
    assert bool(codebook[14:].any()) != include_pruned


def test_compressed_field_is_what_its_classes_say():
    field, compressed = compressed_field()
    density, k0 = decode_grids(compressed)
    classes = compressed.classes
    assert not density[~classes.non_prune].any()
    assert not k0[~classes.non_prune].any()
    original = field.density.table()[:, 0][classes.non_prune].detach()
    assert float((density[classes.non_prune] - original).abs().max()) <= compressed.density.scale
    torch.testing.assert_close(k0[classes.vq], compressed.codebook.float()[compressed.codes])
    decoded = field_of(compressed)
    load_into(field, compressed)
    assert all(torch.equal(value, decoded.state_dict()[name]) for name, value in field.state_dict().items())


def test_mask_of_a_decoded_field_hides_nothing():
    _, compressed = compressed_field(18**3)
    field = field_of(compressed)
    rays_o = torch.randn(400, 3)
    rays_o = 3 * rays_o / rays_o.norm(dim=-1, keepdim=True)
    rays_d = torch.randn(400, 3) * 0.3 - rays_o
    viewdirs = rays_d / rays_d.norm(dim=-1, keepdim=True)
    masked = field(rays_o, rays_d, viewdirs, near=0.5)
    field.set_mask(torch.ones(field.world_size, dtype=torch.bool))
    torch.testing.assert_close(masked["rgb_marched"], field(rays_o, rays_d, viewdirs, near=0.5)["rgb_marched"])


def test_compressing_again_with_the_same_scales_gives_the_same_numbers():
    field, compressed = compressed_field()
    load_into(field, compressed)
    scales = Scales(tuple(compressed.density[1:]), tuple(compressed.kept[1:]))
    codebook = compressed.codebook.float()
    again = compress_field(field, compressed.classes, codebook, compressed.codes, RENDER, scales)
    assert torch.equal(again.density.values, compressed.density.values)
    assert torch.equal(again.kept.values, compressed.kept.values)
    assert torch.equal(again.codebook, compressed.codebook)
