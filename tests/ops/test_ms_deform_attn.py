"""Multi-scale deformable attention."""

import pytest
import torch

from perception.ops.ms_deform_attn import multi_scale_deformable_attention
from tests.ops.definitions import gradients, strided, weighted_sum, zero_bilinear

SHAPES = [(3, 4), (1, 2), (5, 1)]
LENGTH = sum(h * w for h, w in SHAPES)


def inputs(dtype=torch.float64, batch=2, queries=3, heads=2, dim=2, points=2):
    generator = torch.Generator().manual_seed(0)
    levels = len(SHAPES)
    value = torch.randn(batch, LENGTH, heads, dim, generator=generator, dtype=torch.float64)
    # Some locations lie outside the maps.
    location = torch.rand(batch, queries, heads, levels, points, 2, generator=generator, dtype=torch.float64)
    location = location * 1.6 - 0.3
    weight = torch.randn(batch, queries, heads, levels * points, generator=generator, dtype=torch.float64).softmax(-1)
    weight = weight.reshape(batch, queries, heads, levels, points)
    return value.to(dtype), location.to(dtype), weight.to(dtype)


def by_loops(value, location, weight):
    batch, _, heads, dim = value.shape
    queries, points = location.shape[1], location.shape[4]
    out = value.new_zeros(batch, queries, heads, dim)
    for b in range(batch):
        for q in range(queries):
            for m in range(heads):
                for d in range(dim):
                    start, total = 0, value.new_zeros(())
                    for level, (height, width) in enumerate(SHAPES):
                        image = value[b, start : start + height * width, m, d].reshape(height, width)
                        start += height * width
                        for p in range(points):
                            x, y = location[b, q, m, level, p].tolist()
                            sample = zero_bilinear(image, y * height - 0.5, x * width - 0.5)
                            total = total + weight[b, q, m, level, p] * sample
                    out[b, q, m, d] = total
    return out.flatten(2)


def ours(*tensors):
    return multi_scale_deformable_attention(tensors[0], SHAPES, *tensors[1:])


def test_values_and_gradients():
    value, location, weight = inputs()
    expected = by_loops(value, location, weight)
    torch.testing.assert_close(ours(value, location, weight), expected)
    torch.testing.assert_close(ours(*map(strided, (value, location, weight))), expected)
    tensor_shapes = multi_scale_deformable_attention(value, torch.tensor(SHAPES), location, weight)
    torch.testing.assert_close(tensor_shapes, expected)
    torch.testing.assert_close(
        gradients(lambda v, w: ours(v, location, w), value, weight),
        gradients(lambda v, w: by_loops(v, location, w), value, weight),
    )
    leaves = [t.requires_grad_() for t in inputs(batch=1, queries=2)]
    assert torch.autograd.gradcheck(ours, leaves)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 3e-3), (torch.bfloat16, 2e-2)])
def test_lower_precision(dtype, tolerance):
    value, location, weight = inputs(dtype)
    result = ours(value, location, weight)
    assert result.dtype == dtype
    exact = ours(value.double(), location.double(), weight.double())
    torch.testing.assert_close(result.double(), exact, atol=tolerance, rtol=tolerance)
    # Locations may be more precise than the values.
    assert ours(value, location.double(), weight.double()).dtype == dtype


def test_no_queries_and_no_images():
    for sizes in ({"queries": 0}, {"batch": 0}):
        tensors = [t.requires_grad_() for t in inputs(**sizes)]
        result = ours(*tensors)
        assert result.shape == (*tensors[1].shape[:2], 4)
        weighted_sum(result).backward()
        assert (tensors[0].grad == 0).all()


def test_levels_must_fit():
    value, location, weight = inputs()
    with pytest.raises(ValueError, match=f"has {LENGTH - 1}"):
        ours(value[:, 1:], location, weight)
