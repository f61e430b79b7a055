"""Deformable convolution, versions 1 and 2."""

import pytest
import torch
import torch.nn.functional as F

from perception.ops.deform_conv import deform_conv2d
from perception.ops.modulated_deform_conv import modulated_deform_conv2d
from tests.ops.definitions import gradients, strided


def by_loops(x, offset, mask, weight, bias, stride, padding, dilation, deform_groups):
    batch, channels = x.shape[:2]
    out_channels, group_channels, kh, kw = weight.shape
    rows, columns = offset.shape[2:]
    out = []
    for b in range(batch):
        for c in range(out_channels):
            first = c // (out_channels // (channels // group_channels)) * group_channels
            for i in range(rows):
                for j in range(columns):
                    total = x.new_zeros(()) if bias is None else bias[c]
                    for g in range(group_channels):
                        d = (first + g) // (channels // deform_groups)
                        for k in range(kh * kw):
                            tap = d * kh * kw + k
                            y = i * stride[0] - padding[0] + k // kw * dilation[0] + offset[b, 2 * tap, i, j]
                            z = j * stride[1] - padding[1] + k % kw * dilation[1] + offset[b, 2 * tap + 1, i, j]
                            value = zero_bilinear_of(x[b, first + g], y, z)
                            total = total + weight[c, g, k // kw, k % kw] * value * (
                                1 if mask is None else mask[b, tap, i, j]
                            )
                    out.append(total)
    return torch.stack(out).reshape(batch, out_channels, rows, columns)


def zero_bilinear_of(image, y, x):
    """Keeps the gradient by the coordinates, which mmcv takes as zero from exactly one pixel outside."""
    if y <= -1 or x <= -1 or y >= image.shape[0] or x >= image.shape[1]:
        return image.new_zeros(())
    top, left = y.detach().floor().int().item(), x.detach().floor().int().item()
    value = image.new_zeros(())
    for row, v in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, u in ((left, 1 - (x - left)), (left + 1, x - left)):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                value = value + image[row, column] * v * u
    return value


CASES = {
    "plain": {"groups": 1, "deform_groups": 1, "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)},
    "groups": {"groups": 2, "deform_groups": 2, "stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
    "offset groups": {"groups": 1, "deform_groups": 4, "stride": (1, 2), "padding": (2, 1), "dilation": (2, 1)},
}


def inputs(groups, deform_groups, stride, padding, dilation, kernel=(3, 2), zero_offset=False):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, weight = random(2, 4, 5, 4), random(4, 4 // groups, *kernel)
    size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in zip((5, 4), padding, dilation, kernel, stride)]
    taps = deform_groups * kernel[0] * kernel[1]
    offset = random(2, 2 * taps, *size) * (0 if zero_offset else 1.5)
    return x, offset, random(2, taps, *size).sigmoid(), weight, random(4), (stride, padding, dilation, deform_groups)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_version_1(case):
    x, offset, _, weight, _, geometry = inputs(**CASES[case])

    def ours(x, offset, weight):
        return deform_conv2d(x, offset, weight, *geometry)

    def plain(x, offset, weight):
        return by_loops(x, offset, None, weight, None, *geometry)

    expected = plain(x, offset, weight)
    torch.testing.assert_close(ours(x, offset, weight), expected)
    torch.testing.assert_close(ours(strided(x), strided(offset), strided(weight)), expected)
    torch.testing.assert_close(gradients(ours, x, offset, weight), gradients(plain, x, offset, weight))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_version_2(case):
    x, offset, mask, weight, bias, geometry = inputs(**CASES[case])

    def ours(x, offset, mask, weight, bias):
        return modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry)

    def plain(x, offset, mask, weight, bias):
        return by_loops(x, offset, mask, weight, bias, *geometry)

    tensors = x, offset, mask, weight, bias
    torch.testing.assert_close(ours(*tensors), plain(*tensors))
    torch.testing.assert_close(ours(*map(strided, tensors)), plain(*tensors))
    torch.testing.assert_close(gradients(ours, *tensors), gradients(plain, *tensors))


def test_zero_offsets_are_a_convolution_with_the_offset_gradient_of_mmcv():
    """A fresh layer's offsets are zero, so that the taps in the padding read exactly one pixel outside."""
    x, offset, _, weight, _, geometry = inputs(**CASES["plain"], zero_offset=True)

    def ours(x, offset, weight):
        return deform_conv2d(x, offset, weight, *geometry)

    torch.testing.assert_close(ours(x, offset, weight), F.conv2d(x, weight, padding=1))
    by_offset = gradients(ours, x, offset, weight)[1]
    plain = gradients(lambda *t: by_loops(t[0], t[1], None, t[2], None, *geometry), x, offset, weight)[1]
    torch.testing.assert_close(by_offset, plain)
    assert (by_offset[:, 0:2, 0] == 0).all()  # the first tap of the first row lies in the padding
    assert by_offset[:, 0:2, 1:].abs().sum() > 0


def test_empty_batch_and_lower_precision():
    x, offset, mask, weight, bias, geometry = inputs(**CASES["plain"])
    assert deform_conv2d(x[:0], offset[:0], weight, *geometry).shape == (0, 4, 5, 5)
    exact = modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry)
    for dtype, tolerance in ((torch.float16, 2e-2), (torch.bfloat16, 0.2), (torch.float32, 1e-5)):
        tensors = (t.to(dtype) for t in (x, offset, mask, weight, bias))
        result = modulated_deform_conv2d(*tensors, *geometry)
        assert result.dtype == dtype
        rounded = [t.to(dtype).double() for t in (x, offset, mask, weight, bias)]
        exact = modulated_deform_conv2d(*rounded, *geometry)
        torch.testing.assert_close(result.double(), exact, atol=tolerance, rtol=tolerance)
