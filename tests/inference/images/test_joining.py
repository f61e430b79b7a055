"""Masks of objects that no single tile shows whole."""

import json

import numpy as np
import pytest

from perception.inference.images import joining, merging
from perception.inference.images.box_records import box_entries
from perception.inference.images.geojson import feature_collection
from perception.inference.images.joining import union
from perception.inference.images.merging import TileMerger
from perception.inference.images.results import Detections, MaskCrop, crop_masks
from perception.inference.images.tiles import Tiling, tiles


def discs(width, height, *places):
    """A mask for each (x, y, radius)."""
    y, x = np.mgrid[:height, :width]
    return [np.hypot(x - cx, y - cy) < radius for cx, cy, radius in places]


def bars(width, height, *spans):
    """A mask for each (left, top, right, bottom)."""
    masks = np.zeros((len(spans), height, width), bool)
    for mask, (left, top, right, bottom) in zip(masks, spans):
        mask[top:bottom, left:right] = True
    return list(masks)


def seen(window, masks, labels, scores):
    """What a perfect model finds in a window: the part of each mask that lies in it."""
    rows, columns = slice(window.top, window.bottom), slice(window.left, window.right)
    inside = np.stack([mask[rows, columns] for mask in masks])
    kept = np.flatnonzero(inside.any((1, 2)))
    crops = crop_masks(inside[kept])
    boxes = np.array([crop.bounds() for crop in crops], np.float32).reshape(-1, 4)
    return Detections(boxes, np.asarray(scores, np.float32)[kept], np.asarray(labels)[kept], crops)


def merged(masks, width, height, tiling, labels=None, change=None, **options):
    labels = np.zeros(len(masks), np.int64) if labels is None else np.array(labels)
    merger = TileMerger(width, height, **options)
    for number, tile in enumerate(tiles(width, height, tiling)):
        scores = 0.5 + 0.01 * ((7 * number + np.arange(len(masks))) % 11)
        found = seen(tile.window, masks, labels, scores)
        merger.add(tile.window, found if change is None else change(found))
    return merger.merged()


def whole(found, width, height):
    """The masks that were found, in the size of the image."""
    result = []
    for crop in found.masks:
        mask = np.zeros((height, width), bool)
        rows, columns = crop.inside.shape
        mask[crop.top : crop.top + rows, crop.left : crop.left + columns] = crop.inside
        result.append(mask)
    return result


def same(found, masks, width, height):
    """Whether exactly these masks were found, once each."""
    key = lambda mask: mask.tobytes()  # noqa: E731
    return sorted(map(key, whole(found, width, height))) == sorted(map(key, masks))


@pytest.mark.parametrize(
    ("width", "height", "tiling", "span"),
    [
        (1000, 300, Tiling(512, 128), (300, 100, 700, 200)),  # two tiles of a row, the last moved back
        (1000, 300, Tiling(512, 128), (40, 120, 960, 160)),  # three
        (700, 700, Tiling(400, 100), (200, 180, 520, 560)),  # four that meet at a corner
        (300, 1100, Tiling(300, 60), (50, 10, 250, 1090)),  # five of a column
    ],
)
def test_an_object_that_no_tile_holds_is_one_with_its_exact_mask(width, height, tiling, span):
    (mask,) = bars(width, height, span)
    mask[span[1] + 3 : span[1] + 9, span[0] + 5 : span[0] + 11] = False  # a hole
    found = merged([mask], width, height, tiling)
    assert same(found, [mask], width, height)
    assert found.boxes.tolist() == [list(span)]
    scores = [0.5 + 0.01 * (7 * n % 11) for n, tile in enumerate(tiles(width, height, tiling))
              if mask[tile.window.top : tile.window.bottom, tile.window.left : tile.window.right].any()]  # fmt: skip
    assert found.scores.tolist() == [pytest.approx(max(scores))]


def test_neighbours_stay_apart():
    """Ships side by side, 2 pixels apart, each longer than what tiles share; others touch, one is of another class."""
    spans = [(100, 20 + 22 * k, 480, 40 + 22 * k) for k in range(5)]
    spans += [(100, 150, 480, 170), (100, 170, 480, 190), (100, 190, 480, 210)]
    masks = bars(600, 240, *spans)
    found = merged(masks, 600, 240, Tiling(240, 60), labels=[0] * 6 + [1, 0])
    assert same(found, masks, 600, 240)
    assert sorted(found.labels.tolist()) == [0] * 7 + [1]


def test_objects_end_to_end_are_not_one():
    """A row of objects, each touching the next within what two tiles share."""
    masks = bars(900, 200, (10, 80, 270, 110), (270, 80, 560, 110), (560, 80, 890, 110))
    assert same(merged(masks, 900, 200, Tiling(300, 100)), masks, 900, 200)


def test_what_a_tile_holds_whole_is_not_enlarged():
    """Objects smaller than what tiles share come out once, though their masks vary from tile to tile."""
    places = [(60 + 73 * i, 50 + 61 * j, 14 + (3 * i + j) % 9) for i in range(9) for j in range(5)]
    masks = discs(720, 360, *places)
    rng = np.random.default_rng(0)

    def vary(found):
        """Another column of pixels on one side, as two predictions of the same object differ."""
        shifts = [int(rng.integers(2)) * (crop.inside.shape[1] > 4) for crop in found.masks]
        moved = [MaskCrop(crop.left - by, crop.top, crop.inside) for crop, by in zip(found.masks, shifts)]
        crops = [union(pair) for pair in zip(found.masks, moved)]
        boxes = np.array([crop.bounds() for crop in crops], np.float32).reshape(-1, 4)
        return Detections(boxes, found.scores, found.labels, crops)

    found = merged(masks, 720, 360, Tiling(240, 80), change=vary)
    assert len(found.scores) == len(masks)
    extents = {tuple(mask.inside.shape) for mask in found.masks}
    assert max(width for _, width in extents) <= 2 * 22 + 1


def test_lines_and_single_pixels_come_out_as_they_are():
    """The last pixel counts: boxes end behind it, and nothing is dropped for having no width."""
    spans = [(4, 0, 8, 4), (7, 17, 8, 18), (30, 9, 36, 10), (11, 20, 12, 39), (59, 39, 60, 40)]
    masks = bars(60, 40, *spans)
    found = merged(masks, 60, 40, Tiling(24, 8))
    assert same(found, masks, 60, 40)
    assert sorted(map(tuple, found.boxes.tolist())) == sorted(spans)
    assert [int(crop.inside.sum()) for crop in found.masks] == [
        int((x2 - x1) * (y2 - y1)) for x1, y1, x2, y2 in found.boxes
    ]


def test_masks_that_end_before_the_edge_of_their_tile():
    """Masks of 28 cells a side end somewhere in the cell that the edge cuts; parts are joined all the same."""
    (mask,) = bars(1000, 300, (100, 90, 900, 200))

    def coarse(found):
        crops = []
        for crop in found.masks:
            width = crop.inside.shape[1]
            side = width // 28 // 2
            crops.append(MaskCrop(crop.left + side, crop.top, crop.inside[:, side : width - side]))
        boxes = np.array([crop.bounds() for crop in crops], np.float32).reshape(-1, 4)
        return Detections(boxes, found.scores, found.labels, crops)

    found = merged([mask], 1000, 300, Tiling(512, 128), change=coarse)
    (joined,) = whole(found, 1000, 300)
    assert (joined & mask).sum() / (joined | mask).sum() > 0.97


def test_two_detections_of_an_object_in_each_tile_become_two():
    """Soft suppression leaves doubles with low scores; each tile's are joined one by one, the best agreement first."""
    (mask,) = bars(700, 200, (100, 60, 600, 140))

    def doubled(found):
        narrow = [MaskCrop(crop.left, crop.top + 4, crop.inside[4:]) for crop in found.masks]
        masks = [*found.masks, *narrow]
        boxes = np.array([crop.bounds() for crop in masks], np.float32).reshape(-1, 4)
        scores = np.concatenate([found.scores, found.scores - 0.3])
        return Detections(boxes, scores, np.zeros(len(masks), np.int64), masks)

    found = merged([mask], 700, 200, Tiling(400, 100), change=doubled)
    assert [crop.bounds() for crop in found.masks] == [(100, 60, 600, 140), (100, 64, 600, 140)]


def test_masks_are_packed_until_they_are_needed(monkeypatch):
    """What is written is the same without, byte by byte; what is kept is much less than a byte a pixel."""
    places = [(110 + 240 * i, 90 + 170 * j, 30 + (19 * i + 31 * j) % 110) for i in range(5) for j in range(4)]
    masks = [*discs(1300, 800, *places), np.zeros((800, 1300), bool)]
    masks[3][60:80] = False

    def written():
        found = merged(masks, 1300, 800, Tiling(400, 100), labels=np.arange(len(masks)) % 3)
        entries = box_entries(found, 1300, 800, 1, "abc")
        return found, json.dumps([entries, feature_collection(found, 1, "abc")])

    found, text = written()
    kept = sum(len(vars(mask)["_packed"]) for mask in found.masks)
    assert kept < sum(mask.inside.size for mask in found.masks) / 30
    monkeypatch.setattr(merging, "PackedMask", lambda mask, left, top: MaskCrop(left, top, mask.inside))
    plain, expected = written()
    assert text == expected
    assert all(np.array_equal(*pair) for pair in zip(whole(found, 1300, 800), whole(plain, 1300, 800)))


def test_a_whole_beats_a_part_and_a_lone_part_stays():
    (mask,) = bars(500, 200, (250, 60, 420, 140))
    found = merged([mask], 500, 200, Tiling(300, 100))  # the left tile cuts it, the right one holds it
    assert same(found, [mask], 500, 200)
    alone = TileMerger(500, 200)
    for tile, seen_here in zip(tiles(500, 200, Tiling(300, 100)), (True, False)):
        part = seen(tile.window, [mask] if seen_here else [np.zeros_like(mask)], [0], [0.9])
        alone.add(tile.window, part)
    assert [crop.bounds() for crop in alone.merged().masks] == [(250, 60, 300, 140)]


def test_without_a_shared_strip_nothing_is_joined():
    (mask,) = bars(400, 100, (50, 40, 350, 60))
    found = merged([mask], 400, 100, Tiling(200, 0))
    assert sorted(crop.bounds() for crop in found.masks) == [(50, 40, 200, 60), (200, 40, 350, 60)]


def test_masks_do_not_outgrow_memory(monkeypatch):
    (mask,) = bars(1000, 300, (40, 120, 960, 160))
    monkeypatch.setattr(joining, "_LARGEST", 600 * 40)
    found = merged([mask], 1000, 300, Tiling(512, 128))
    assert all(crop.inside.size <= 600 * 40 for crop in found.masks)
    assert np.array_equal(np.any(whole(found, 1000, 300), 0), mask)


@pytest.mark.parametrize("factor", [2, 3, 7])
def test_reduced_masks(factor):
    (mask,) = discs(100, 80, (41, 37, 23))
    (crop,) = crop_masks(mask[None])
    small = crop.reduced(factor)
    area = small.inside.sum() * factor**2
    assert area == pytest.approx(mask.sum(), rel=0.1)
    rows, columns = np.nonzero(small.inside)
    centre = ((columns + small.left + 0.5) * factor).mean(), ((rows + small.top + 0.5) * factor).mean()
    assert centre == pytest.approx((41.5, 37.5), abs=0.3 * factor)
    thin = MaskCrop(5, 9, np.ones((1, 30), bool)).reduced(factor)
    assert thin.inside.any()
    assert thin.bounds() == (5 // factor, 9 // factor, -(-35 // factor), 9 // factor + 1)
    assert MaskCrop(0, 0, np.zeros((0, 0), bool)).reduced(factor).inside.size == 0
