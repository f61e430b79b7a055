"""CARAFE, masked convolution, attention masks and rotating filters."""

import pytest
import torch
import torch.nn.functional as F

from perception.ops.active_rotated_filter import active_rotated_filter
from perception.ops.carafe import carafe
from perception.ops.masked_conv import masked_conv2d
from perception.ops.psa_mask import psa_mask
from tests.ops.definitions import gradients, strided


@pytest.mark.parametrize(("kernel", "groups", "scale"), [(5, 1, 2), (3, 2, 1), (3, 4, 3), (1, 2, 2)])
def test_carafe(kernel, groups, scale):
    features = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    masks = torch.randn(2, groups * kernel**2, 3 * scale, 5 * scale, dtype=torch.float64)

    def plain(x, weights):
        out = []
        for b in range(2):
            for c in range(4):
                for i in range(3 * scale):
                    for j in range(5 * scale):
                        total = x.new_zeros(())
                        for k in range(kernel**2):
                            y, z = i // scale + k // kernel - kernel // 2, j // scale + k % kernel - kernel // 2
                            if 0 <= y < 3 and 0 <= z < 5:
                                total = total + x[b, c, y, z] * weights[b, c * groups // 4 * kernel**2 + k, i, j]
                        out.append(total)
        return torch.stack(out).reshape(2, 4, 3 * scale, 5 * scale)

    def ours(x, weights):
        return carafe(x, weights, kernel, groups, scale)

    expected = plain(features, masks)
    torch.testing.assert_close(ours(features, masks), expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(ours(strided(features), strided(masks)), expected, atol=1e-12, rtol=1e-12)
    if kernel * scale < 10:
        torch.testing.assert_close(gradients(ours, features, masks), gradients(plain, features, masks))
    assert ours(features[:0], masks[:0]).shape == (0, 4, 3 * scale, 5 * scale)


def test_carafe_rejects_what_does_not_fit():
    with pytest.raises(ValueError, match="odd"):
        carafe(torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 6, 6), 2, 1, 2)
    with pytest.raises(ValueError, match=r"\(1, 9, 6, 6\)"):
        carafe(torch.zeros(1, 2, 3, 3), torch.zeros(1, 9, 3, 3), 3, 1, 2)


def test_masked_convolution():
    features, weight, bias = torch.randn(1, 3, 6, 7), torch.randn(4, 3, 3, 5), torch.randn(4)
    mask = torch.rand(1, 6, 7) - 0.5

    def ours(x, w, b):
        return masked_conv2d(x, mask, w, b, (1, 2))

    def plain(x, w, b):
        return F.conv2d(x, w, b, padding=(1, 2)) * (mask > 0)

    tensors = features, weight, bias
    torch.testing.assert_close(ours(*tensors), plain(*tensors))
    torch.testing.assert_close(gradients(ours, *tensors), gradients(plain, *tensors))
    assert (masked_conv2d(*tensors[:1], mask * 0, *tensors[1:], (1, 2)) == 0).all()


@pytest.mark.parametrize("direction", ["collect", "distribute"])
@pytest.mark.parametrize("size", [(3, 5), (4, 2), (9, 7)])
def test_psa_mask(direction, size):
    height, width = 4, 3
    masks = torch.randn(2, size[0] * size[1], height, width, dtype=torch.float64)

    def plain(m):
        out = m.new_zeros(2, height * width, height, width)
        for h in range(height):
            for w in range(width):
                for k in range(size[0] * size[1]):
                    y, x = h + k // size[1] - (size[0] - 1) // 2, w + k % size[1] - (size[1] - 1) // 2
                    if 0 <= y < height and 0 <= x < width:
                        if direction == "collect":
                            out[:, y * width + x, h, w] = m[:, k, h, w]
                        else:
                            out[:, h * width + w, y, x] = m[:, k, h, w]
        return out

    def ours(m):
        return psa_mask(m, direction, size)

    torch.testing.assert_close(ours(masks), plain(masks))
    torch.testing.assert_close(ours(strided(masks)), plain(masks))
    torch.testing.assert_close(gradients(ours, masks), gradients(plain, masks))


def test_psa_mask_knows_two_directions():
    with pytest.raises(ValueError, match="gather"):
        psa_mask(torch.zeros(1, 9, 2, 2), "gather", (3, 3))


def test_active_rotated_filter():
    out_planes, in_planes, orientations, rotations = 2, 3, 2, 4
    entries = orientations * 9
    weight = torch.randn(out_planes, in_planes, orientations, 3, 3, dtype=torch.float64)
    permutations = torch.stack([torch.randperm(entries) + 1 for _ in range(rotations)], 1)
    indices = permutations.int().reshape(orientations, 3, 3, rotations)

    def plain(w):
        out = w.new_zeros(out_planes * rotations, in_planes * orientations, 3, 3)
        flat = out.view(out_planes, rotations, in_planes, entries)
        for entry in range(entries):
            for r in range(rotations):
                flat[:, r, :, permutations[entry, r] - 1] = w.flatten(2)[..., entry]
        return out

    torch.testing.assert_close(active_rotated_filter(weight, indices), plain(weight))
    torch.testing.assert_close(active_rotated_filter(strided(weight), indices), plain(weight))
    torch.testing.assert_close(gradients(lambda w: active_rotated_filter(w, indices), weight), gradients(plain, weight))
