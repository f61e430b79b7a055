"""Multi-scale deformable attention: numbers recorded from two systems' authors, and its laws."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from perception.layers.deformable_attention import (
    DeformableSampling,
    MultiScaleDeformableAttention,
    ring_offsets,
    sampling_locations,
)

FOLDER = Path(__file__).parents[1] / "data" / "reference"
SHAPES = torch.tensor([[4, 6], [2, 3]])
TOKENS = 30


def drawn(*size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def randomise(module: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module


@pytest.mark.parametrize("reference", ["ref2", "ref4"])
def test_recorded_attention_around_points_and_boxes(reference):
    case = torch.load(FOLDER / "rank_detr" / "layers.pt", weights_only=True)["outputs"]["ms_deform_attn"]
    module = MultiScaleDeformableAttention(32, 4, 3, 4)
    assert_close(module.sampling_offsets.bias.data, case["init_sampling_offsets_bias"])
    module.load_state_dict(case["state_dict"])
    query, value = case["query"].clone().requires_grad_(), case["value"].clone().requires_grad_()
    points = case[reference]["reference_points"].clone().requires_grad_()

    output = module(query, case["query_pos"], value, points, case["spatial_shapes"], case["key_padding_mask"])
    (output * case[reference]["loss_weight"]).sum().backward()

    assert_close(output, case[reference]["output"], atol=1e-5, rtol=0)
    for tensor, name in ((query, "grad_query"), (value, "grad_value"), (points, "grad_ref")):
        assert_close(tensor.grad, case[reference][name], atol=1e-5, rtol=1e-5)


def test_recorded_sampling_around_a_place_per_point():
    """BEVFormer's pillars: point p of a head is offset from the pillar's place number p mod 4."""
    case = torch.load(FOLDER / "bevformer_v2" / "msda3d.pt", weights_only=True)
    inputs, outputs = case["inputs"], case["outputs"]
    module = DeformableSampling(**case["meta"])
    assert_close(module.sampling_offsets.bias.data, outputs["initial_sampling_offsets_bias"])
    module.load_state_dict(case["state_dict"])
    places = inputs["reference_points"].repeat(1, 1, 2, 1)[:, :, None]  # B, Q, 1, P, 2
    sampled = module(inputs["query"], None, inputs["value"], places, inputs["spatial_shapes"])
    assert_close(sampled, outputs["out"], atol=1e-5, rtol=0)


def test_offsets_start_on_growing_squares():
    offsets = ring_offsets(num_heads=8, num_levels=3, num_points=4)
    assert offsets.shape == (8, 3, 4, 2)
    assert_close(offsets.abs().amax(-1), torch.arange(1.0, 5.0).expand(8, 3, 4))
    assert_close(offsets[1, 0, 1], torch.tensor([2.0, 2.0]))  # second head, second point: to the lower right
    assert_close(offsets[6, 2, 0], torch.tensor([0.0, -1.0]), atol=1e-6, rtol=0)


def test_units_of_offsets():
    offsets = torch.ones(1, 1, 1, 2, 3, 2)
    at_centres = sampling_locations(torch.full((1, 1, 2, 2), 0.5), offsets, SHAPES)
    assert_close(at_centres[0, 0, 0, :, 0], torch.tensor([[0.5 + 1 / 6, 0.5 + 1 / 4], [0.5 + 1 / 3, 0.5 + 1 / 2]]))
    boxes = torch.tensor([0.5, 0.4, 0.6, 0.3]).expand(1, 1, 2, 4)
    in_boxes = sampling_locations(boxes, offsets, SHAPES)
    assert_close(in_boxes, torch.tensor([0.5 + 0.6 / 6, 0.4 + 0.3 / 6]).expand(1, 1, 1, 2, 3, 2))
    per_point = sampling_locations(torch.full((1, 1, 1, 3, 2), 0.5), offsets, SHAPES)
    assert_close(per_point, at_centres)
    for wrong in ((1, 1, 2, 3), (1, 1, 1, 3, 4), (1, 2, 2)):
        with pytest.raises(ValueError, match="reference_points must have the shape"):
            sampling_locations(torch.zeros(wrong), offsets, SHAPES)


def test_constant_values_inside_the_maps_come_out_unchanged():
    module = randomise(DeformableSampling(8, 2, 2, 3)).double()
    module.sampling_offsets.weight.data.zero_()
    module.sampling_offsets.bias.data.mul_(0.1)
    value = drawn(2, 1, 8).expand(-1, TOKENS, -1)
    sampled = module(drawn(2, 5, 8, seed=1), None, value, torch.full((2, 5, 2, 2), 0.5), SHAPES)
    assert_close(sampled, module.value_proj(value[:, :5]))


def test_padded_tokens_count_as_zero():
    module = randomise(MultiScaleDeformableAttention(8, 2, 2, 3)).double()
    query, position, value = drawn(2, 5, 8), drawn(2, 5, 8, seed=1), drawn(2, TOKENS, 8, seed=2)
    places = drawn(2, 5, 2, 2, seed=3)
    mask = drawn(2, TOKENS, seed=4) < 0.3
    masked = module(query, position, value, places, SHAPES, mask)
    other = value.masked_fill(mask[..., None], 7.0)
    assert_close(module(query, position, other, places, SHAPES, mask), masked)
    assert (module(query, position, value, places, SHAPES) - masked).abs().max() > 1e-3
    assert_close(module(query, None, value, places, SHAPES), module(query, 0 * position, value, places, SHAPES))
    everything = torch.ones_like(mask)
    nothing = module.output_proj.bias + query
    assert_close(module(query, position, value, places, SHAPES, everything), nothing)


def test_levels_can_be_weighted_apart():
    """A subclass that weights each level on its own is the mean of single-level samplings, as in BEVFormer's
    temporal attention, whose levels are frames."""

    class PerLevel(DeformableSampling):
        def weigh(self, logits):
            return logits.softmax(-1) / self.num_levels

    both = randomise(PerLevel(8, 2, 2, 3, query_dims=16)).double()
    query, value, places = drawn(1, 5, 16), drawn(1, 48, 8, seed=1), drawn(1, 5, 2, 2, seed=2)
    total = 0
    for level in range(2):
        one = DeformableSampling(8, 2, 1, 3, query_dims=16).double()
        one.value_proj = both.value_proj
        for name, sizes in (("sampling_offsets", (3, 2)), ("attention_weights", (3, 1))):
            ours, theirs = getattr(one, name), getattr(both, name)
            ours.weight.data = theirs.weight.data.view(2, 2, *sizes, 16)[:, level].flatten(0, 2)
            ours.bias.data = theirs.bias.data.view(2, 2, *sizes)[:, level].flatten()
        tokens = value[:, 24 * level : 24 * (level + 1)]
        total = total + one(query, None, tokens, places[:, :, level : level + 1], SHAPES[:1])
    assert_close(both(query, None, value, places, SHAPES[[0, 0]]), total / 2)


def test_dropout_spares_the_residual():
    module = randomise(MultiScaleDeformableAttention(8, 2, 2, 3, dropout=1.0)).double().train()
    query, value, places = drawn(1, 5, 8), drawn(1, TOKENS, 8, seed=1), drawn(1, 5, 2, 2, seed=2)
    assert torch.equal(module(query, None, value, places, SHAPES), query)
    assert (module.eval()(query, None, value, places, SHAPES) - query).abs().min() > 0


def test_half_precision_values_are_read_at_precise_places():
    """In bfloat16 a place on a map of 600 columns would be off by more than a pixel."""
    module = DeformableSampling(4, 1, 1, 1)
    module.value_proj.weight.data = torch.eye(4)
    module.sampling_offsets.bias.data.zero_()
    value = torch.zeros(1, 600, 4)
    value[:, 425] = 1.0
    place = torch.tensor([425.5 / 600, 0.5]).view(1, 1, 1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sampled = module(torch.zeros(1, 1, 4), None, value, place, torch.tensor([[1, 600]]))
    assert sampled.dtype == torch.bfloat16
    assert_close(sampled.float(), torch.ones(1, 1, 4), atol=1e-2, rtol=0)


def test_gradients():
    module = randomise(MultiScaleDeformableAttention(4, 2, 2, 2)).double()
    leaves = [
        drawn(1, 2, 4).requires_grad_(),
        drawn(1, TOKENS, 4, seed=1).requires_grad_(),
        (drawn(1, 2, 2, 2, seed=2) * 0.8 + 0.1).requires_grad_(),
    ]
    assert torch.autograd.gradcheck(lambda q, v, p: module(q, None, v, p, SHAPES), leaves)


def test_heads_must_divide_channels():
    with pytest.raises(ValueError, match="divisible by num_heads, got 10 and 4"):
        DeformableSampling(10, 4)
