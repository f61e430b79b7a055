"""RoI max pooling."""

import math

import pytest
import torch

from perception.ops.roi_pool import roi_pool
from tests.ops.definitions import gradients, strided

ROIS = [
    [0, 4, 4, 40, 30],
    [1, 10, 2, 70, 50],
    [0, -30, -20, 11, 9],
    [1, 21, 13, 22, 14],
    [0, 30, 20, 30, 20],
    [0, 30, 20, 25, 15],  # negative size
    [1, 90, 60, 99, 70],  # outside the map
]


def by_loops(maps, rois, size, scale):
    pooled = maps.new_zeros(len(rois), maps.shape[1], *size)
    place = torch.full(pooled.shape, -1)
    height, width = maps.shape[2:]
    for r, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = x1 * scale, y1 * scale, (x2 + 1) * scale, (y2 + 1) * scale
        if x2 <= x1 or y2 <= y1:
            continue
        for i in range(size[0]):
            for j in range(size[1]):
                rows = [(k * (y2 - y1) / size[0] + y1) for k in (i, i + 1)]
                columns = [(k * (x2 - x1) / size[1] + x1) for k in (j, j + 1)]
                top, bottom = max(math.floor(rows[0]), 0), min(math.ceil(rows[1]), height)
                left, right = max(math.floor(columns[0]), 0), min(math.ceil(columns[1]), width)
                pixels = [y * width + x for y in range(top, bottom) for x in range(left, right)]
                for c in range(maps.shape[1] if pixels else 0):
                    values = maps[int(image), c].flatten()[pixels]
                    pooled[r, c, i, j] = values.max()
                    place[r, c, i, j] = pixels[values.tolist().index(values.max())]
    return pooled, place


@pytest.mark.parametrize("most", [2, 9])
def test_roi_pool(most):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(-most, most, (2, 3, 9, 14), generator=generator).double()  # with many equal values
    rois = torch.tensor(ROIS, dtype=torch.float64)
    pooled, place = roi_pool(maps, rois, (3, 2), 0.25)
    expected, expected_place = by_loops(maps, rois, (3, 2), 0.25)
    torch.testing.assert_close(pooled, expected)
    assert torch.equal(place, expected_place)
    torch.testing.assert_close(roi_pool(strided(maps), strided(rois), (3, 2), 0.25)[0], expected)
    assert roi_pool(maps.half(), rois.half(), (3, 2), 0.25)[0].dtype == torch.half


def test_gradient():
    maps = torch.randn(2, 3, 9, 14, dtype=torch.float64)
    rois = torch.tensor(ROIS, dtype=torch.float64)
    ours = gradients(lambda m: roi_pool(m, rois, (2, 2), 0.25)[0], maps)
    torch.testing.assert_close(ours, gradients(lambda m: by_loops(m, rois, (2, 2), 0.25)[0], maps))


def test_no_regions():
    pooled, place = roi_pool(torch.randn(1, 2, 5, 5), torch.zeros(0, 5), (2, 2))
    assert pooled.shape == place.shape == (0, 2, 2, 2)
