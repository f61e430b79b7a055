"""RoIAlign with both poolings and its rotated, rotation-invariant and Bezier forms."""

import math

import pytest
import torch

from perception.ops.bezier_align import bezier_align
from perception.ops.riroi_align_rotated import riroi_align_rotated
from perception.ops.roi_align import roi_align, roi_align_backward, roi_max_align, roi_max_align_backward
from perception.ops.roi_align_rotated import roi_align_rotated
from perception.ops.rotated_feature_align import rotated_feature_align
from tests.ops.definitions import gradients, roi_bilinear, strided, weighted_sum

SCALE = 0.25
SIZE = (2, 3)
ROIS = [
    [0, 4, 4, 40, 30],
    [1, 10, 2, 70, 50],  # leaves the map to the right and below
    [0, -30, -20, 11, 9],  # begins outside
    [1, 21, 13, 22, 14],  # smaller than a pixel of the map
    [0, 30, 20, 30, 20],  # no size
]
ROTATED = [
    [0, 20, 15, 30, 12, 0.4],
    [1, 40, 28, 60, 40, -1.1],
    [0, 2, 1, 25, 9, 2.8],
    [1, 21, 13, 1, 1, 0.0],
    [0, 30, 20, 0, 0, 0.7],
]


def features(channels=2, dtype=torch.float64):
    return torch.randn(2, channels, 9, 14, generator=torch.Generator().manual_seed(0), dtype=dtype)


def bin_samples(extent, bins, ratio):
    """Offsets of the samples in each bin from the region's start."""
    number = ratio if ratio > 0 else math.ceil(extent / bins)
    return [[(i + (s + 0.5) / number) * extent / bins for s in range(number)] for i in range(bins)]


def pool_by_loops(maps, image, size, rows_of, columns_of, place, reduce, empty):
    """Pools `reduce` over samples at `place(v, u)` -> (y, x) for v in a bin's rows and u in its columns."""
    out = maps.new_full((maps.shape[1], *size), empty)
    for c in range(maps.shape[1]):
        for i in range(size[0]):
            for j in range(size[1]):
                samples = [roi_bilinear(maps[image, c], *place(v, u)) for v in rows_of[i] for u in columns_of[j]]
                if samples:
                    out[c, i, j] = reduce(torch.stack(samples))
    return out


def roi_align_by_loops(maps, rois, ratio, aligned, reduce, empty):
    pooled = []
    for image, *corners in rois.tolist():
        x1, y1, x2, y2 = (c * SCALE - 0.5 * aligned for c in corners)
        width, height = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1), max(y2 - y1, 1))
        rows, columns = bin_samples(height, SIZE[0], ratio), bin_samples(width, SIZE[1], ratio)
        pooled.append(
            pool_by_loops(maps, int(image), SIZE, rows, columns, lambda v, u: (y1 + v, x1 + u), reduce, empty)  # noqa: B023
        )
    return torch.stack(pooled)


def rotated_by_loops(maps, rois, ratio, aligned, clockwise):
    pooled = []
    for image, cx, cy, w, h, angle in rois.tolist():
        x0, y0, width, height = cx * SCALE - 0.5 * aligned, cy * SCALE - 0.5 * aligned, w * SCALE, h * SCALE
        if not aligned:
            width, height = max(width, 1), max(height, 1)
        # Counter-clockwise as seen in the image turns the x axis against the y axis.
        cos, sin = math.cos(angle), math.sin(angle) * (1 if clockwise else -1)

        def place(v, u):
            v, u = v - height / 2, u - width / 2  # noqa: B023
            return y0 + u * sin + v * cos, x0 + u * cos - v * sin  # noqa: B023

        rows, columns = bin_samples(height, SIZE[0], ratio), bin_samples(width, SIZE[1], ratio)
        pooled.append(pool_by_loops(maps, int(image), SIZE, rows, columns, place, torch.mean, 0.0))
    return torch.stack(pooled)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2])
def test_average(aligned, ratio):
    rois = torch.tensor(ROIS, dtype=torch.float64)

    def ours(maps):
        return roi_align(maps, rois, SIZE, SCALE, ratio, aligned)

    def plain(maps):
        return roi_align_by_loops(maps, rois, ratio, aligned, torch.mean, 0.0)

    maps = features()
    torch.testing.assert_close(ours(maps), plain(maps))
    torch.testing.assert_close(ours(strided(maps)), plain(maps))
    torch.testing.assert_close(gradients(ours, maps), gradients(plain, maps))
    grad = torch.linspace(-1, 1, ours(maps).numel(), dtype=torch.float64).view_as(ours(maps))
    explicit = roi_align_backward(grad, rois, maps.shape, SCALE, ratio, aligned)
    torch.testing.assert_close((explicit,), gradients(plain, maps))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2])
def test_maximum(aligned, ratio):
    rois = torch.tensor(ROIS, dtype=torch.float64)

    def ours(maps):
        return roi_max_align(maps, rois, SIZE, SCALE, ratio, aligned)[0]

    def plain(maps):
        return roi_align_by_loops(maps, rois, ratio, aligned, torch.amax, -10000.0)

    maps = features()
    pooled, y, x = roi_max_align(maps, rois, SIZE, SCALE, ratio, aligned)
    torch.testing.assert_close(pooled, plain(maps))
    torch.testing.assert_close(ours(strided(maps)), plain(maps))
    found = y != -1
    for r, c, i, j in found.nonzero().tolist():
        at_place = roi_bilinear(maps[int(rois[r, 0]), c], y[r, c, i, j].item(), x[r, c, i, j].item())
        assert at_place.item() == pytest.approx(pooled[r, c, i, j].item())
    grad = torch.linspace(-1, 1, pooled.numel(), dtype=torch.float64).view_as(pooled)
    torch.testing.assert_close(gradients(ours, maps)[0], roi_max_align_backward(grad, rois, y, x, maps.shape))
    # Where a bin lies outside the map several samples are equally zero, and the loops share the gradient among them:
    # their gradient on the map is zero as well.
    torch.testing.assert_close(gradients(ours, maps), gradients(plain, maps))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("clockwise", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_rotated(aligned, clockwise, ratio):
    rois = torch.tensor(ROTATED, dtype=torch.float64)

    def ours(maps):
        return roi_align_rotated(maps, rois, SIZE, SCALE, ratio, aligned, clockwise)

    def plain(maps):
        return rotated_by_loops(maps, rois, ratio, aligned, clockwise)

    maps = features()
    torch.testing.assert_close(ours(maps), plain(maps))
    torch.testing.assert_close(ours(strided(maps)), plain(maps))
    torch.testing.assert_close(gradients(ours, maps), gradients(plain, maps))


def test_rotated_without_rotation_is_the_upright_one():
    rois = torch.tensor(ROIS[:4], dtype=torch.float64)
    x1, y1, x2, y2 = rois[:, 1:].unbind(1)
    turned = torch.stack([rois[:, 0], (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, torch.zeros_like(x1)], 1)
    expected = roi_align(features(), rois, (4, 5), SCALE, 0, True)
    torch.testing.assert_close(roi_align_rotated(features(), turned, (4, 5), SCALE, 0, True), expected)


@pytest.mark.parametrize("clockwise", [True, False])
def test_rotation_invariant(clockwise):
    orientations, channels = 4, 2
    rois = torch.tensor(ROTATED, dtype=torch.float64)

    def ours(maps):
        return riroi_align_rotated(maps, rois, SIZE, SCALE, 2, orientations, clockwise)

    def plain(maps):
        pooled = rotated_by_loops(maps, rois, 2, False, clockwise).reshape(len(rois), channels, orientations, *SIZE)
        turned = torch.zeros_like(pooled)
        for r, angle in enumerate(rois[:, 5].tolist()):
            step = angle * orientations / (2 * math.pi)
            part = step - math.floor(step)
            for o in range(orientations):
                source = (o - math.floor(step)) % orientations
                above = (source + 1) % orientations
                turned[r, :, o] = (1 - part) * pooled[r, :, source] + part * pooled[r, :, above]
        return turned.flatten(1, 2)

    maps = features(channels * orientations)
    torch.testing.assert_close(ours(maps), plain(maps))
    torch.testing.assert_close(gradients(ours, maps), gradients(plain, maps))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_bezier(aligned, ratio):
    upper = [4, 6, 14, 2, 26, 3, 38, 8]
    lower = [40, 20, 27, 16, 15, 15, 5, 22]
    beziers = torch.tensor([[1, *upper, *lower], [0, *lower, *upper]]).double()

    def curve(control, u):
        weights = [(1 - u) ** 3, 3 * u * (1 - u) ** 2, 3 * u**2 * (1 - u), u**3]
        return [sum(w * p[axis] for w, p in zip(weights, control)) for axis in (0, 1)]

    def plain(maps):
        pooled = maps.new_zeros(len(beziers), maps.shape[1], *SIZE)
        for r, (image, *points) in enumerate(beziers.tolist()):
            points = [[points[k] * SCALE, points[k + 1] * SCALE] for k in range(0, 16, 2)]
            first, second = points[:4], points[:3:-1]
            extent = [max(abs(c[0][axis] - c[3][axis]) for c in (first, second)) for axis in (0, 1)]
            width, height = extent if aligned else [max(e, 1) for e in extent]
            steps_y, steps_x = bin_samples(height / SIZE[0], 1, ratio)[0], bin_samples(width / SIZE[1], 1, ratio)[0]
            for i in range(SIZE[0]):
                for j in range(SIZE[1]):
                    (xa, ya), (xb, yb) = curve(first, j / SIZE[1]), curve(second, j / SIZE[1])
                    v = i / SIZE[0]
                    y = ya * (1 - v) + yb * v - height / SIZE[0] / 2 - 0.5 * aligned
                    x = xa * (1 - v) + xb * v - width / SIZE[1] / 2 - 0.5 * aligned
                    for c in range(maps.shape[1]):
                        samples = [roi_bilinear(maps[int(image), c], y + b, x + a) for b in steps_y for a in steps_x]
                        pooled[r, c, i, j] = torch.stack(samples).mean()
        return pooled

    def ours(maps):
        return bezier_align(maps, beziers, SIZE, SCALE, ratio, aligned)

    maps = features()
    torch.testing.assert_close(ours(maps), plain(maps))
    torch.testing.assert_close(gradients(ours, maps), gradients(plain, maps))


@pytest.mark.parametrize("points", [1, 5])
def test_feature_align(points):
    maps = torch.randn(2, 2, 4, 5, dtype=torch.float64)
    boxes = torch.rand(2, 4, 5, 5, dtype=torch.float64) * torch.tensor([36.0, 44, 30, 20, 3])

    def plain(maps):
        out = maps.clone()
        for b in range(2):
            for i in range(4):
                for j in range(5):
                    y, x, w, h, a = boxes[b, i, j].tolist()
                    y, x, w, h = (v / 8 for v in (y, x, w, h))
                    places = [(y, x)]
                    for su, sv in ((1, 1), (-1, 1), (-1, -1), (1, -1)) if points == 5 else ():
                        u, v = su * w / 2, sv * h / 2
                        places.append((y + u * math.sin(a) + v * math.cos(a), x + u * math.cos(a) - v * math.sin(a)))
                    for c in range(2):
                        out[b, c, i, j] = maps[b, c, i, j] + sum(roi_bilinear(maps[b, c], *p) for p in places)
        return out

    def ours(maps):
        return rotated_feature_align(maps, boxes, 1 / 8, points)

    torch.testing.assert_close(ours(maps), plain(maps))
    torch.testing.assert_close(gradients(ours, maps), gradients(plain, maps))
    with pytest.raises(ValueError, match="3"):
        rotated_feature_align(maps, boxes, 1 / 8, 3)


@pytest.mark.parametrize(("pool", "width"), [(roi_align, 5), (roi_align_rotated, 6), (bezier_align, 17)])
@pytest.mark.parametrize("ratio", [0, 2])
def test_no_regions(pool, width, ratio):
    maps = features().requires_grad_()
    pooled = pool(maps, torch.zeros(0, width, dtype=torch.float64), SIZE, SCALE, ratio)
    assert pooled.shape == (0, 2, *SIZE)
    weighted_sum(pooled).backward()


def test_no_regions_for_the_maximum():
    pooled, y, x = roi_max_align(features(), torch.zeros(0, 5, dtype=torch.float64), SIZE, SCALE)
    assert pooled.shape == y.shape == x.shape == (0, 2, *SIZE)
    assert (roi_max_align_backward(pooled, torch.zeros(0, 5), y, x, features().shape) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision(dtype):
    maps, rois, turned = features(), torch.tensor(ROIS), torch.tensor(ROTATED)
    for pool, regions in ((roi_align, rois), (roi_align_rotated, turned), (lambda *a: roi_max_align(*a)[0], rois)):
        exact = pool(maps, regions.double(), SIZE, SCALE)
        result = pool(maps.to(dtype), regions.to(dtype), SIZE, SCALE)
        assert result.dtype == dtype
        tolerance = {torch.float16: 2e-2, torch.bfloat16: 0.1, torch.float32: 1e-4}[dtype]
        torch.testing.assert_close(result[:4].double(), exact[:4], atol=tolerance, rtol=tolerance)
