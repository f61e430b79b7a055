"""Windows, fusion, re-weighting and merging: recorded numbers of the authors' code, and the laws that define them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from perception.geometry.level_merging import merge_levels, merge_windows, to_native
from perception.geometry.pyramid import Level, contexts_of, pyramid
from perception.geometry.rotated_boxes import as_oc, box_corners
from perception.geometry.windows import polygons_of, shares_inside, sliding_windows, with_enough_image
from perception.ops.box_iou_rotated import box_iou_rotated
from projects.hbd_net.fusion import InterLevelFusion, crop_to_patch
from projects.hbd_net.reweighting import shape_sensitive_weights

FOLDER = Path(__file__).parents[2] / "data" / "reference" / "hbd_net"


def load(name):
    return torch.load(FOLDER / f"{name}.pt", weights_only=True)


WINDOWS, FUSION, SSRW = (load(name) for name in ("windows", "fusion", "ssrw"))

# ----------------------------------------------------------------------------------------------- windows and levels


@pytest.mark.parametrize("key", WINDOWS["windows"], ids=str)
def test_recorded_windows(key):
    width, height, size, gap, share = key
    windows = with_enough_image(sliding_windows(width, height, size, gap), width, height, share)
    assert windows.tolist() == WINDOWS["windows"][key].tolist()
    if share == 0.6:
        assert Level(1, width, height).windows(size, gap).tolist() == windows.tolist()


def test_recorded_levels():
    for side, recorded in WINDOWS["pyramid"].items():
        native, *reduced = pyramid(side, side)
        assert native == Level(1, side, side)
        assert [level.width for level in reduced] == recorded["interp_sizes"]
        assert [level.factor for level in reduced] == recorded["scales"]


def test_windows_of_a_huge_image():
    counts = [len(level.windows()) for level in pyramid(16384, 16384)]
    assert counts == [400, 100, 25, 9, 1]
    assert [len(level.windows()) for level in pyramid(4000, 1000)] == [5, 3, 1]  # true width and height
    assert pyramid(1024, 700) == [Level(1, 1024, 700)]


def test_recorded_objects_of_windows():
    case = WINDOWS["iof"]
    corners = case["poly"].double().view(-1, 4, 2).numpy()
    windows = case["windows"].numpy()
    shares = shares_inside(corners, windows)
    np.testing.assert_allclose(shares, case["iof"], atol=1e-4)
    kept_of = [polygons_of(corners, window, shares[:, k], 0.1)[0] for k, window in enumerate(windows)]
    assert [kept.tolist() for kept in kept_of] == [kept.tolist() for kept in case["kept"]]
    for k, (polygons, cut) in enumerate(zip(case["local_polys_untranslated"], case["trunc"], strict=True)):
        _, local, reaches_out = polygons_of(corners, windows[k], shares[:, k], 0.1)
        np.testing.assert_allclose(local + windows[k, :2], polygons.view(-1, 4, 2), atol=1e-2)
        # Rounding of the areas marks some as cut there that lie whole in the window.
        assert reaches_out.tolist() == [bool(flag) and shares[i, k] < 1 - 1e-9 for i, flag in zip(kept_of[k], cut)]


def test_recorded_frame_of_angles():
    boxes = WINDOWS["iof"]["obb_oc"]
    assert_close(as_oc(boxes), boxes, atol=1e-4, rtol=0)
    turned = torch.stack([*boxes[:, :2].T, boxes[:, 3], boxes[:, 2], boxes[:, 4] - math.pi / 2], 1)
    assert_close(as_oc(turned), WINDOWS["obb_roundtrip"], atol=2e-2, rtol=0)
    angles = as_oc(torch.tensor([[0, 0, 4, 2, angle] for angle in (0, math.pi, -math.pi / 2, 7.0, -1e-3)]))[:, 4]
    assert (angles > 0).all()
    assert (angles <= math.pi / 2 + 1e-6).all()


def test_context_around_a_patch():
    """An image of 8192 pixels: crops of half and quarter size around the patch, moved into the image at its borders."""
    half, quarter = contexts_of(8192, 8192, 3296, 4120)
    assert (half.factor, half.left, half.top, half.width) == (2, 1392, 1804, 1024)
    assert half.inside == (0.25, 0.25, 0.75, 0.75)
    assert (quarter.factor, quarter.left, quarter.top) == (4, 440, 646)
    assert quarter.inside == pytest.approx((0.375, 0.375, 0.625, 0.625))
    assert [crop.factor for crop in contexts_of(8192, 8192, 0, 0, max_levels=None)] == [2, 4, 8]
    corner = contexts_of(8192, 8192, 7168, 0)[0]
    assert (corner.left, corner.top) == (3072, 0)
    assert corner.inside == (0.5, 0.0, 1.0, 0.5)
    assert corner.flipped("horizontal").inside == (0.0, 0.0, 0.5, 0.5)
    assert corner.flipped("vertical").inside == (0.5, 0.5, 1.0, 1.0)
    assert corner.flipped("diagonal").flipped("diagonal") == corner
    with pytest.raises(ValueError, match="'left'"):
        corner.flipped("left")


def test_context_of_a_small_or_flat_image():
    (whole,) = contexts_of(2000, 1600, 976, 576)
    assert (whole.left, whole.top, whole.width, whole.height) == (0, 0, 1000, 800)
    assert whole.inside == pytest.approx((0.488, 0.36, 1.0, 1.0))
    flat = contexts_of(6000, 1500, 4976, 476)[0]
    assert (flat.left, flat.top) == (1976, -18)  # 750 rows do not fill the crop
    assert flat.inside == pytest.approx((0.5, 0.25, 1.0, 0.75), abs=2e-3)


@pytest.mark.parametrize(("width", "height"), [(2001, 1999), (8193, 6001), (1500, 700), (300, 2600), (1025, 1030)])
def test_patches_lie_in_their_context_whatever_the_size(width, height):
    """Odd sizes, and sides shorter than a patch: the place has the size that the reduction says, within a pixel."""
    for x, y, *_ in pyramid(width, height)[0].windows().tolist():
        for crop in contexts_of(width, height, x, y, max_levels=None):
            left, top, right, bottom = crop.inside
            assert 0 <= left < right <= 1
            assert 0 <= top < bottom <= 1
            for share, length in ((right - left, crop.width), (bottom - top, crop.height)):
                assert abs(share * length - 1024 / crop.factor) < 0.51


@pytest.mark.parametrize("gap", [0, 4, 15])
def test_windows_cover_images_of_any_size(gap):
    for width in range(1, 41):
        for height in (width, 17):
            seen = np.zeros((height, width), bool)
            for x1, y1, x2, y2 in sliding_windows(width, height, 16, gap):
                assert (x2 - x1, y2 - y1) == (16, 16)
                assert min(x2, width) - x1 == min(16, width)
                seen[y1:y2, x1:x2] = True
            assert seen.all()
    with pytest.raises(ValueError, match="not 16 with size 16"):
        sliding_windows(40, 40, 16, 16)


# ------------------------------------------------------------------------------------------------------------ fusion


def fusion(channels=8):
    module = InterLevelFusion(channels, most=2)
    module.load_state_dict({key.removeprefix("fusion_convs."): value for key, value in FUSION["state_dict"].items()})
    return module


def transposed(maps):
    """The recorded maps have x before y."""
    return [x.mT.contiguous() for x in maps]


@pytest.mark.parametrize("case", FUSION["cases"], ids=lambda case: f"{len(case['meta']['down_ratio'])}_levels")
def test_recorded_fusion(case):
    module = fusion()
    for conv in module:  # the kernels see transposed maps, too
        conv.conv.weight.data = conv.conv.weight.data.mT.contiguous()
    meta = case["meta"]
    crops = len(meta["down_ratio"])
    local = [torch.zeros(1, 8, side, side) for side in (32, 16)]
    local += [x.requires_grad_() for x in transposed(case["local"])]
    context = [x.requires_grad_() for x in transposed(case["glob"])]
    everything = [torch.zeros(crops, 8, 32, 32), *context, torch.zeros(crops, 8, 2, 2)]
    fused = module(local, everything, meta["rel_x0y0x1y1"], meta["down_ratio"])
    assert fused[0] is local[0]
    assert fused[1] is local[1]
    for found, expected in zip(transposed(fused[2:]), case["fused"], strict=True):
        assert_close(found, expected, atol=1e-5, rtol=0)
    if crops == 1:
        sum((x * w).sum() for x, w in zip(transposed(fused[2:]), case["cotangent"])).backward()
        for leaves, recorded in ((local[2:], case["grads"]["local"]), (context, case["grads"]["glob"])):
            for x, expected in zip(leaves, recorded, strict=True):
                assert_close(x.grad.mT, expected, atol=1e-5, rtol=1e-4)


def test_crops_show_the_place_of_the_patch():
    """Maps that hold their own native coordinates agree with the patch's within a cell."""
    x, y, size = 3000, 5100, 256
    for crop in contexts_of(8192, 6144, x, y, size=size):
        stride = 4
        cells = torch.arange(size // stride) * stride * crop.factor
        columns = (crop.left * crop.factor + cells).expand(len(cells), -1)
        rows = (crop.top * crop.factor + cells)[:, None].expand(-1, len(cells))
        length = size // (stride * crop.factor)
        seen = crop_to_patch(torch.stack([columns, rows])[None], crop.inside, (length, length))
        expected = torch.arange(length) * stride * crop.factor
        assert (seen[0, 0] - (x + expected)).abs().max() <= stride * crop.factor
        assert (seen[0, 1] - (y + expected)[:, None]).abs().max() <= stride * crop.factor


def test_gradient_stays_in_the_place_of_the_patch():
    local = [torch.randn(1, 8, side, side) for side in (32, 16, 8, 4, 2)]
    context = [torch.randn(1, 8, side, side, requires_grad=True) for side in (32, 16, 8, 4, 2)]
    fused = fusion()(local, context, [(0.5, 0.0, 1.0, 0.5)], [2])
    sum(x.square().sum() for x in fused).backward()
    assert context[0].grad is None
    assert context[4].grad is None
    seen = context[1].grad[0].abs().sum(0) > 0
    assert seen[:8, 8:].all()  # top right: rows go with y
    assert seen.sum() == 64


def test_places_that_cannot_be_are_refused():
    local = [torch.zeros(1, 8, side, side) for side in (32, 16, 8, 4, 2)]
    context = [torch.zeros(3, 8, side, side) for side in (32, 16, 8, 4, 2)]
    middle = (0.25, 0.25, 0.75, 0.75)
    with pytest.raises(ValueError, match="3 crops"):
        fusion()(local, context, [middle], [2])
    with pytest.raises(ValueError, match="not 3"):
        fusion()(local, [x[:1] for x in context], [middle], [3])
    with pytest.raises(ValueError, match="at most 2"):
        fusion()(local, context, [middle, (0.375, 0.375, 0.625, 0.625), (0.4375, 0.4375, 0.5625, 0.5625)], [2, 4, 8])
    with pytest.raises(ValueError, match=r"from 0\.75 to 1\.25"):
        fusion()(local, [x[:1] for x in context], [(0.75, 0, 1.25, 0.5)], [2])
    with pytest.raises(ValueError, match=r"covers 16\.00 cells"):
        fusion()(local, [x[:1] for x in context], [(0, 0, 1, 1)], [2])


def test_published_size():
    with torch.device("meta"):
        module = InterLevelFusion()
    assert sum(p.numel() for p in module.parameters()) == 11_797_760
    assert [tuple(module[k].conv.weight.shape) for k in (0, 4)] == [(256, 512, 3, 3), (256, 1536, 3, 3)]


# ------------------------------------------------------------------------------------------------------ re-weighting


def test_recorded_weights():
    proposals, objects = SSRW["inputs"]["pos_bboxes"], SSRW["inputs"]["gt_bboxes"]
    recorded = SSRW["outputs"]
    released = shape_sensitive_weights(proposals, objects, "h_over_w")
    assert_close(released, recorded["released_bbox_weights"][:48, 0], atol=1e-5, rtol=1e-5)
    weights = shape_sensitive_weights(proposals, objects)
    assert_close(weights, recorded["orientation_free_long_over_short"], atol=1e-5, rtol=1e-5)
    assert (released < 0).any()
    assert (weights > 0).all()


def test_weights_are_free_of_orientation_and_size():
    proposals, objects = SSRW["inputs"]["pos_bboxes"].double(), SSRW["inputs"]["gt_bboxes"].double()
    weights = shape_sensitive_weights(proposals, objects)
    cx, cy, w, h, angle = objects.T
    other = torch.stack([cx, cy, h, w, angle - math.pi / 2], 1)
    assert_close(shape_sensitive_weights(proposals, other), weights)
    scale = torch.tensor([3.0, 3, 3, 3, 1]).double()
    assert_close(shape_sensitive_weights(proposals * scale, objects * scale), weights)
    cos, sin = math.cos(0.7), math.sin(0.7)
    turn = torch.tensor([[cos, sin], [-sin, cos]]).double()
    turned = [torch.cat([x[:, :2] @ turn, x[:, 2:4], x[:, 4:] + 0.7], 1) for x in (proposals, objects)]
    assert_close(shape_sensitive_weights(*turned), weights)


def test_weights_by_hand():
    objects = torch.tensor([[50.0, 60, 10, 10, 0.4], [0, 0, 50, 10, 0], [0, 0, 50, 10, math.pi / 2]])
    assert_close(shape_sensitive_weights(objects, objects), torch.tensor([0.3, 0.7828, 0.7828]), atol=1e-4, rtol=0)
    off = torch.tensor([[0.0, 5, 9, 9, 0]])  # along the long side of the third: a fifth of its half
    expected = 0.3 * (math.log(1.2) + 1) * (math.log(5) + 1)
    assert_close(shape_sensitive_weights(off, objects[2:]), torch.tensor([expected]))
    with pytest.raises(ValueError, match="'w_over_h'"):
        shape_sensitive_weights(objects, objects, "w_over_h")


# ----------------------------------------------------------------------------------------------------------- merging


def test_overlaps_of_the_specification():
    box = torch.tensor([[0.0, 0, 10, 4, 0]])
    others = torch.tensor(
        [[3.0, 0, 10, 4, 0], [0, 0, 4, 10, math.pi / 2], [0, 0, 10, 4, math.pi / 4], [0, 0, 10, 4, -0.3]]
    )
    assert_close(box_iou_rotated(box, others)[0], torch.tensor([0.5385, 1, 0.3944, 0.6911]), atol=1e-4, rtol=0)


def test_one_bridge_of_many_windows_and_levels():
    bridge = torch.tensor([[950.0, 930, 120, 30, 0.6]])
    native = []
    for k, origin in enumerate(((0, 0), (824, 0), (0, 824), (824, 824))):
        local = torch.cat([bridge - torch.tensor([[*origin, 0, 0, 0]]), torch.tensor([[0.5 + k / 10]])], 1)
        native.append(to_native(local, origin, 1))
        assert_close(native[-1][:, :5], bridge)
    half = to_native(torch.cat([bridge * torch.tensor([0.5, 0.5, 0.5, 0.5, 1]), torch.tensor([[0.75]])], 1), (0, 0), 2)
    assert_close(half[:, :5], bridge)
    for order in ((0, 1, 2, 3), (3, 1, 0, 2)):
        level = merge_windows([native[k] for k in order])
        assert_close(level, native[3])
        assert_close(merge_levels([half, level]), native[3])
        assert_close(merge_levels([level, half]), native[3])


@pytest.mark.parametrize("angle", [0, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_overlap_of_exactly_the_threshold(angle, dtype):
    """Both stay, as on GPUs; the released merging, on the CPU, keeps the better one."""
    for width, threshold in ((40, 0.4), (50, 0.5)):
        pair = torch.tensor([[70.0, 90, 100, 20, angle, 0.9], [70, 90, width, 20, angle, 0.8]], dtype=dtype)
        assert_close(merge_windows([pair], threshold, inclusive=True), pair[:1])
        assert_close(merge_levels([pair[1:], pair[:1]], threshold, inclusive=True), pair[:1])
        less = pair - torch.tensor([[0, 0, 0, 0, 0, 0], [0, 0, 0.01, 0, 0, 0]], dtype=dtype)
        assert_close(merge_windows([less], threshold, inclusive=True), less)
    if angle == 0:
        assert_close(merge_windows([pair], 0.5), pair)


def test_equal_scores_do_not_depend_on_the_order_of_windows():
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(60, 5, generator=generator) * torch.tensor([90, 90, 30, 10, 3.0]) + 5
    detections = torch.cat([boxes, torch.randint(1, 4, (60, 1), generator=generator) / 4], 1)
    merged = merge_windows(detections.split(20))
    assert len(merged) < 60
    backwards = merge_windows([one.flip(0) for one in reversed(detections.split(20))])
    assert torch.equal(merged, backwards)


def test_what_merging_keeps_apart():
    """Isolated boxes all stay, and so do neighbours that only touch; parts of less than the threshold are kept, too."""
    lone = torch.tensor([[100.0 * k, 50, 60, 12, 0.3, 0.5] for k in range(5)])
    assert len(merge_levels([merge_windows([lone[:2], lone[2:]])])) == 5
    parallel = torch.tensor([[50.0, 50, 100, 10, 0, 0.9], [50, 62, 100, 10, 0, 0.8]])
    assert len(merge_windows([parallel])) == 2
    row = torch.tensor([[70.0 * k, 50, 100, 20, 0, 0.9 - k / 10] for k in range(5)])  # each overlaps the next by 30 %
    assert len(merge_windows([row])) == 5
    whole, part = torch.tensor([[50.0, 50, 100, 20, 0, 0.6]]), torch.tensor([[80.0, 50, 40, 20, 0, 0.9]])
    assert len(merge_levels([whole, part])) == 2  # an overlap of 0.4: the released rule knows no parts
    most = torch.tensor([[60.0, 50, 80, 20, 0, 0.5]])
    assert_close(merge_levels([whole, most]), whole)


def test_levels_of_odd_size_map_back_by_axis():
    """The corner object of 1001 x 777 pixels on its half and quarter, to half a pixel."""
    corner = torch.tensor([[991.0, 767, 20, 20, 0], [900, 700, 60, 8, 0.5], [900, 700, 8, 60, -0.4]])
    for width, height in ((500, 388), (250, 194)):
        scale = torch.tensor([width / 1001, height / 777])
        corners = box_corners(corner) * scale
        across, down = corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]
        angle = torch.atan2(across[:, 1], across[:, 0])
        sides = torch.stack([across.norm(dim=1), down.norm(dim=1), angle, torch.ones(3)], 1)
        level = torch.cat([corners.mean(1), sides], 1)
        back = to_native(level, (0, 0), (1001 / width, 777 / height))[:, :5]
        assert (box_corners(back) - box_corners(corner)).abs().max() < 0.5
    assert_close(to_native(level, (3, 5), (2, 2)), to_native(level, (3, 5), 2))


def test_nothing_found():
    assert merge_windows([]).shape == (0, 6)
    assert merge_windows([torch.zeros(0, 6)] * 3).shape == (0, 6)
    assert merge_levels([torch.zeros(0, 6), torch.tensor([[5.0, 5, 4, 2, 0, 0.9]])]).shape == (1, 6)


def test_long_bridge_is_whole_on_a_reduced_level():
    """A bridge of 1500 x 30 pixels: detectors that see what is in their window find pieces of it, until it fits."""
    bridge = torch.tensor([[1500.0, 1500, 1500, 30, 0]])
    found = []
    for level in pyramid(3000, 3000):
        detections = []
        for window in torch.from_numpy(level.windows()):
            corners = box_corners(bridge * torch.tensor([1, 1, 1, 1, 0]) / level.factor)[0]
            low = corners.amin(0).round().maximum(window[:2])
            high = corners.amax(0).round().minimum(window[2:])
            if (high > low).all():
                centre, size = (low + high) / 2 - window[:2], high - low
                score = 0.5 + 0.4 * (size[0] / (1500 / level.factor))
                visible = torch.cat([centre, size, torch.zeros(1), score[None]])[None]
                detections.append(to_native(visible, window[:2].tolist(), level.factor))
        found.append(merge_windows(detections))
    native = box_iou_rotated(found[0][:, :5], bridge)
    assert native.max() < 0.7
    assert len(found[0]) > 1
    merged = merge_levels([*found[1:], found[0]])
    assert box_iou_rotated(merged[:1, :5], bridge) > 0.9
