"""How images are cut, and what was found in the parts put together again."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from perception.geometry.rotated_boxes import upright_bounds
from perception.inference.images.merging import TileMerger
from perception.inference.images.results import Detections, MaskCrop
from perception.inference.images.tiles import Tiling, Window, cut_sides, tiles

SIZES = [(1000, 700), (1024, 1024), (1025, 300), (100, 90), (3000, 2000), (1848, 1848)]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("tiling", [Tiling(1024, 200), Tiling(256, 0), Tiling(300, 299 // 2)])
def test_tiles_cover_and_cores_divide(width, height, tiling):
    cut = tiles(width, height, tiling)
    seen, owned = np.zeros((height, width), int), np.zeros((height, width), int)
    for tile in cut:
        window, core = tile.window, tile.core
        assert (window.width, window.height) == (min(tiling.size, width), min(tiling.size, height))
        assert window.left <= core.left < core.right <= window.right <= width
        assert window.top <= core.top < core.bottom <= window.bottom <= height
        seen[window.top : window.bottom, window.left : window.right] += 1
        owned[core.top : core.bottom, core.left : core.right] += 1
    assert seen.min() == 1
    assert (owned == 1).all()
    assert cut == sorted(cut, key=lambda tile: (tile.window.top, tile.window.left))
    for before, after in pairwise(cut):
        if after.window.top == before.window.top:
            assert before.window.right - after.window.left >= tiling.overlap
            # Neither core reaches closer to its window's edge than half of what the two share.
            assert before.window.right - before.core.right >= tiling.overlap // 2
            assert after.core.left - after.window.left >= tiling.overlap // 2


def test_windows_of_a_published_size():
    """3008 pixels at 1024 with a gap of 200: steps of 824, and the last one moved back."""
    assert [tile.window.left for tile in tiles(3008, 100, Tiling(1024, 200))] == [0, 824, 1648, 1984]
    assert len(tiles(16384, 16384, Tiling(1024, 200))) == 400


@pytest.mark.parametrize("overlap", [-1, 64, 80])
def test_overlaps_that_make_no_progress_are_refused(overlap):
    with pytest.raises(ValueError, match="below the tile's 64"):
        Tiling(64, overlap)


def test_only_inner_edges_cut():
    bounds = np.array([[0, 0, 20, 20], [95, 40, 100, 50], [20, 20, 30, 30], [50, 88, 60, 99.0]])
    left, top, right, bottom = cut_sides(bounds, Window(0, 0, 100, 100), 200, 100).T.tolist()
    assert right == [False, True, False, False]
    assert not any(left + top + bottom)
    assert cut_sides(bounds, Window(0, 0, 100, 100), 100, 200)[:, 3].tolist() == [False, False, False, True]
    assert cut_sides(bounds, Window(1, 1, 99, 99), 100, 100)[0].tolist() == [True, True, False, False]


def _rotated(*rows, scores=None, labels=None):
    boxes = np.asarray(rows, np.float32).reshape(-1, 5)
    count = len(boxes)
    return Detections(
        boxes,
        np.asarray(scores if scores is not None else np.full(count, 0.5), np.float32),
        np.asarray(labels if labels is not None else np.zeros(count), np.int64),
    )


def _merge(*parts, width=300, height=100, **options):
    merger = TileMerger(width, height, **options)
    for window, found in parts:
        merger.add(window, found)
    return merger.merged()


LEFT, RIGHT = Window(0, 0, 160, 100), Window(140, 0, 160, 100)


def test_one_object_in_two_tiles_is_one():
    merged = _merge((LEFT, _rotated([150, 50, 12, 6, 0.3], scores=[0.7])), (RIGHT, _rotated([10, 50, 12, 6, 0.3])))
    assert merged.boxes.tolist() == [pytest.approx([150, 50, 12, 6, 0.3])]
    assert merged.scores.tolist() == [pytest.approx(0.7)]
    other = _merge(
        (LEFT, _rotated([150, 50, 12, 6, 0.3])), (RIGHT, _rotated([10, 50, 12, 6, 0.3], labels=[1], scores=[0.9]))
    )
    assert other.labels.tolist() == [1, 0]  # best first


def test_a_part_gives_way_to_the_whole_even_with_a_higher_score():
    """The left tile ends in the middle of the object: its part overlaps the whole by less than any threshold."""
    part, elsewhere = [159, 50, 2, 10, 0.0], [100, 50, 100, 10, 0.0]
    merged = _merge((LEFT, _rotated(part, scores=[0.99])), (RIGHT, _rotated([30, 50, 50, 10, 0.0], scores=[0.4])))
    assert merged.boxes.tolist() == [pytest.approx([170, 50, 50, 10, 0])]
    # Without another tile that shows it whole, the part stays.
    alone = _merge((LEFT, _rotated(part, scores=[0.99])), (RIGHT, _rotated(elsewhere)), iou_threshold=0.5)
    assert len(alone.scores) == 2


def test_what_one_tile_yields_is_not_compared():
    crowd = _rotated([50, 50, 20, 10, 0], [54, 50, 20, 10, 0])
    assert len(_merge((LEFT, crowd), (RIGHT, _rotated())).scores) == 2


def test_upright_boxes_and_masks():
    def boxed(*boxes, masks=None):
        count = len(boxes)
        return Detections(
            np.asarray(boxes, np.float32).reshape(-1, 4), np.linspace(0.9, 0.8, count, dtype=np.float32),
            np.zeros(count, np.int64), masks,
        )  # fmt: skip

    merged = _merge((LEFT, boxed([142, 10, 152, 30])), (RIGHT, boxed([3, 10, 12, 30], [60, 0, 70, 9])))
    assert merged.boxes.tolist() == [[142, 10, 152, 30], [200, 0, 210, 9]]

    # Two crossed bars: their boxes are the same, their masks are not.
    rows, columns = np.mgrid[:10, :10]
    one, other = MaskCrop(145, 20, rows == columns), MaskCrop(5, 20, rows + columns == 9)
    again = MaskCrop(5, 20, one.inside)
    box = [5, 20, 15, 30]
    merged = _merge((LEFT, boxed([145, 20, 155, 30], masks=[one])), (RIGHT, boxed(box, box, masks=[other, again])))
    assert len(merged.scores) == 2
    assert [(mask.left, mask.top) for mask in merged.masks] == [(145, 20), (145, 20)]
    assert np.array_equal(merged.masks[1].inside, other.inside)


def test_a_crowded_scene_seen_in_overlapping_tiles_is_found_exactly():
    """Ships side by side, closer than their length, each tile reporting what it holds of them."""
    truth = torch.tensor(
        [[40 + 13 * i, 60 + 55 * j, 48, 9, math.radians(80 - 3 * j)] for i in range(60) for j in range(14)]
    )
    bounds = upright_bounds(truth)
    width, height = 860, 860
    merger = TileMerger(width, height)
    for index, tile in enumerate(tiles(width, height, Tiling(256, 80))):
        window = tile.window
        low, high = torch.tensor([window.left, window.top]), torch.tensor([window.right, window.bottom])
        inside = (bounds[:, :2] >= low).all(1) & (bounds[:, 2:] <= high).all(1)
        cut = ~inside & ((truth[:, :2] > low) & (truth[:, :2] < high)).all(1)
        found = torch.cat([truth[inside], truth[cut]])
        # Of a cut object, a part: a shorter box at the same place.
        found[inside.sum() :, 2] *= 0.6
        found[:, :2] -= low
        scores = torch.linspace(0.9, 0.6, len(found)) + 0.001 * index
        merger.add(window, Detections(found.numpy(), scores.numpy(), np.zeros(len(found), np.int64)))
    merged = merger.merged()
    whole = (bounds[:, :2] >= 0).all(1) & (bounds[:, 2:] <= torch.tensor([width, height])).all(1)
    found = {tuple(np.round(box, 2)) for box in merged.boxes.tolist()}
    assert {tuple(np.round(box, 2)) for box in truth[whole].tolist()} <= found
    assert len(merged.scores) <= len(truth)


@pytest.mark.parametrize("rotated", [True, False])
def test_the_threshold(rotated):
    """Two boxes of 40 x 10 that share a known part; the default depends on the kind of box, the option on nothing."""

    def survivors(overlap, **options):
        shift = 40 * (1 - overlap) / (1 + overlap)  # an IoU of `overlap`
        boxes = [[[60, 50, 40, 10, 0]], [[20 + shift, 50, 40, 10, 0]]]
        if not rotated:
            boxes = [[[x - 20, 45, x + 20, 55]] for x in (60, 20 + shift)]
        first, second = (
            Detections(np.array(box, np.float32), np.full(1, 0.5, np.float32), np.zeros(1, np.int64)) for box in boxes
        )
        # The second window begins 40 pixels on; neither box touches an inner edge.
        parts = ((Window(0, 0, 200, 100), first), (Window(40, 0, 260, 100), second))
        return len(_merge(*parts, **options).scores)

    default = 0.1 if rotated else 0.5
    assert [survivors(default - 0.02), survivors(default + 0.02)] == [2, 1]
    assert [survivors(0.28, iou_threshold=0.3), survivors(0.32, iou_threshold=0.3)] == [2, 1]


def test_masks_survive_tiles_that_hold_nothing():
    found = Detections(
        np.array([[10, 10, 20, 20]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64),
        [MaskCrop(10, 10, np.ones((10, 10), bool))],
    )  # fmt: skip
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    merged = _merge((LEFT, nothing), (RIGHT, found))
    assert [(mask.left, mask.top) for mask in merged.masks] == [(150, 10)]
    assert _merge((LEFT, nothing), (RIGHT, nothing)).boxes.shape == (0, 4)
