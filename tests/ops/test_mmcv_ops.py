"""Every function of `mmcv.ops` that the stand-in serves, called through mmcv's own wrappers."""

import mmcv.ops
import numpy as np
import pytest
import torch

from perception.ops.bbox_overlaps import bbox_overlaps
from perception.ops.bezier_align import bezier_align
from perception.ops.box_iou_quadri import box_iou_quadri
from perception.ops.box_iou_rotated import box_iou_rotated
from perception.ops.carafe import carafe
from perception.ops.chamfer_distance import chamfer_distance
from perception.ops.convex_iou import convex_giou, convex_iou
from perception.ops.deform_conv import deform_conv2d
from perception.ops.deform_roi_pool import deform_roi_pool
from perception.ops.focal_loss import sigmoid_focal_loss, softmax_focal_loss
from perception.ops.gather_points import gather_points
from perception.ops.group_points import group_points
from perception.ops.masked_conv import masked_conv2d
from perception.ops.min_area_polygons import min_area_polygons
from perception.ops.modulated_deform_conv import modulated_deform_conv2d
from perception.ops.ms_deform_attn import multi_scale_deformable_attention
from perception.ops.nms import nms
from perception.ops.nms_match import nms_match
from perception.ops.nms_quadri import nms_quadri
from perception.ops.nms_rotated import nms_rotated
from perception.ops.point_sample import point_sample
from perception.ops.points_in_boxes import first_box_of_points, points_in_boxes
from perception.ops.points_in_polygons import points_in_polygons
from perception.ops.psa_mask import psa_mask
from perception.ops.riroi_align_rotated import riroi_align_rotated
from perception.ops.roi_align import roi_align, roi_max_align
from perception.ops.roi_align_rotated import roi_align_rotated
from perception.ops.roi_pool import roi_pool
from perception.ops.rotated_feature_align import rotated_feature_align
from perception.ops.soft_nms import soft_nms
from perception.ops.three_interpolate import three_interpolate
from perception.ops.voxelization import hard_voxelize, voxel_coordinates
from tests.ops.definitions import gradients, some_boxes, some_rotated_boxes

MAPS = torch.randn(2, 8, 12, 15, generator=torch.Generator().manual_seed(0))
ROIS = torch.tensor([[0.0, 4, 4, 40, 30], [1, 10, 2, 70, 50], [1, -9, 3, 17, 14]])
TURNED_ROIS = torch.tensor([[0.0, 20, 15, 30, 12, 0.4], [1, 40, 28, 60, 40, -1.1]])
BEZIERS = torch.tensor([[1.0, 4, 6, 14, 2, 26, 3, 38, 8, 40, 20, 27, 16, 15, 15, 5, 22]])


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def equal_with_gradients(theirs, ours, *inputs):
    """Both functions agree, in values and in the gradients by all inputs, and take non-contiguous gradients."""
    torch.testing.assert_close(theirs(*inputs), ours(*inputs))
    torch.testing.assert_close(gradients(theirs, *inputs), gradients(ours, *inputs))

    def transposed(function):
        return lambda *args: function(*args).transpose(0, -1)

    torch.testing.assert_close(gradients(transposed(theirs), *inputs), gradients(transposed(ours), *inputs))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align(aligned, ratio):
    options = (3, 2), 0.25, ratio
    for rois in (ROIS, ROIS[:0]):
        equal_with_gradients(
            lambda x: mmcv.ops.roi_align(x, rois, *options, "avg", aligned),  # noqa: B023
            lambda x: roi_align(x, rois, *options, aligned),  # noqa: B023
            MAPS,
        )
        equal_with_gradients(
            lambda x: mmcv.ops.roi_align(x, rois, *options, "max", aligned),  # noqa: B023
            lambda x: roi_max_align(x, rois, *options, aligned)[0],  # noqa: B023
            MAPS,
        )


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("clockwise", [True, False])
def test_roi_align_rotated(aligned, clockwise):
    for rois in (TURNED_ROIS, TURNED_ROIS[:0]):
        equal_with_gradients(
            lambda x: mmcv.ops.roi_align_rotated(x, rois, (3, 2), 0.25, 0, aligned, clockwise),  # noqa: B023
            lambda x: roi_align_rotated(x, rois, (3, 2), 0.25, 0, aligned, clockwise),  # noqa: B023
            MAPS,
        )


@pytest.mark.parametrize("clockwise", [True, False])
def test_riroi_align_rotated(clockwise):
    equal_with_gradients(
        lambda x: mmcv.ops.riroi_align_rotated(x, TURNED_ROIS, (3, 2), 0.25, 2, 4, clockwise),
        lambda x: riroi_align_rotated(x, TURNED_ROIS, (3, 2), 0.25, 2, 4, clockwise),
        MAPS,
    )


def test_other_pooling():
    for rois in (ROIS, ROIS[:0]):
        equal_with_gradients(
            lambda x: mmcv.ops.roi_pool(x, rois, (3, 2), 0.25),  # noqa: B023
            lambda x: roi_pool(x, rois, (3, 2), 0.25)[0],  # noqa: B023
            MAPS,
        )
    equal_with_gradients(
        lambda x: mmcv.ops.bezier_align(x, BEZIERS, (3, 2), 0.25, 2, True),
        lambda x: bezier_align(x, BEZIERS, (3, 2), 0.25, 2, True),
        MAPS,
    )
    boxes = random(2, 12, 15, 5).abs() * 40
    for points in (1, 5):
        equal_with_gradients(
            lambda x: mmcv.ops.rotated_feature_align(x, boxes, 0.25, points),  # noqa: B023
            lambda x: rotated_feature_align(x, boxes, 0.25, points),  # noqa: B023
            MAPS,
        )


@pytest.mark.parametrize(("groups", "deform_groups"), [(1, 1), (2, 4)])
def test_deformable_convolutions(groups, deform_groups):
    offset, mask = random(2, deform_groups * 18, 6, 8), random(2, deform_groups * 9, 6, 8).sigmoid()
    weight, bias = random(6, 8 // groups, 3, 3), random(6)
    theirs = 2, 1, 1, groups, deform_groups
    ours = (2, 2), (1, 1), (1, 1), deform_groups
    equal_with_gradients(
        lambda *t: mmcv.ops.deform_conv2d(*t, *theirs), lambda *t: deform_conv2d(*t, *ours), MAPS, offset, weight
    )
    equal_with_gradients(
        lambda w: mmcv.ops.deform_conv2d(MAPS, offset, w, *theirs),
        lambda w: deform_conv2d(MAPS, offset, w, *ours),
        weight,
    )
    tensors = MAPS, offset, mask, weight, bias
    equal_with_gradients(
        lambda *t: mmcv.ops.modulated_deform_conv2d(*t, *theirs),
        lambda *t: modulated_deform_conv2d(*t, *ours),
        *tensors,
    )
    equal_with_gradients(
        lambda *t: mmcv.ops.modulated_deform_conv2d(*t, None, *theirs),
        lambda *t: modulated_deform_conv2d(*t, None, *ours),
        *tensors[:4],
    )


@pytest.mark.parametrize("weighted", [True, False])
def test_focal_losses(weighted):
    logits, target = random(7, 4), torch.tensor([0, 1, 2, 3, 3, 2, 0])
    weight = torch.tensor([1.0, 0.5, 2.0, 0.1]) if weighted else None
    for theirs, ours in (
        (mmcv.ops.sigmoid_focal_loss, sigmoid_focal_loss),
        (mmcv.ops.softmax_focal_loss, softmax_focal_loss),
    ):
        for reduction in ("mean", "sum"):
            scale = 1 / 7 if reduction == "mean" else 1
            torch.testing.assert_close(
                gradients(lambda x: theirs(x, target, 1.5, 0.4, weight, reduction) * -1, logits),  # noqa: B023
                gradients(lambda x: ours(x, target, 1.5, 0.4, weight).sum() * -scale, logits),  # noqa: B023
            )
    torch.testing.assert_close(
        mmcv.ops.sigmoid_focal_loss(logits, target, 1.5, 0.4, weight, "none"),
        sigmoid_focal_loss(logits, target, 1.5, 0.4, weight),
    )


def test_attention():
    shapes = torch.tensor([[3, 4], [5, 2]])
    starts = torch.tensor([0, 12])
    function = mmcv.ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction
    equal_with_gradients(
        lambda v, p, w: function.apply(v, shapes, starts, p, w, 64),
        lambda v, p, w: multi_scale_deformable_attention(v, shapes, p, w),
        random(2, 22, 2, 4),
        random(2, 5, 2, 2, 3, 2).sigmoid(),
        random(2, 5, 2, 2, 3).softmax(-1),
    )
    masks = random(2, 15, 4, 6)
    for number, direction in enumerate(("collect", "distribute")):
        equal_with_gradients(
            lambda m: mmcv.ops.psa_mask.psa_mask(m, number, (3, 5)),  # noqa: B023
            lambda m: psa_mask(m, direction, (3, 5)),  # noqa: B023
            masks,
        )


def test_carafe_and_masked_convolution():
    features, masks = random(2, 4, 3, 5), random(2, 18, 6, 10)
    equal_with_gradients(
        lambda x, m: mmcv.ops.carafe(x, m, 3, 2, 2), lambda x, m: carafe(x, m, 3, 2, 2), features, masks
    )
    torch.testing.assert_close(mmcv.ops.carafe_naive(features, masks, 3, 2, 2), carafe(features, masks, 3, 2, 2))
    image, mask, weight, bias = random(1, 4, 6, 7), random(1, 6, 7), random(5, 4, 3, 3), random(5)
    theirs = mmcv.ops.masked_conv2d(image, mask, weight, bias, 1)
    torch.testing.assert_close(theirs, masked_conv2d(image, mask, weight, bias, (1, 1)))
    assert (mmcv.ops.masked_conv2d(image, mask * 0, weight, bias, 1) == 0).all()


@pytest.mark.parametrize("mode", ["iou", "iof"])
@pytest.mark.parametrize("aligned", [True, False])
def test_overlaps(mode, aligned):
    boxes1, boxes2 = some_boxes(9, seed=1)[0], some_boxes(9, seed=2)[0]
    turned1, turned2 = some_rotated_boxes(9, seed=1)[0], some_rotated_boxes(9, seed=2)[0]
    for offset in (0, 1):
        theirs = mmcv.ops.bbox_overlaps(boxes1, boxes2, mode, aligned, offset)
        torch.testing.assert_close(theirs, bbox_overlaps(boxes1, boxes2, mode, aligned, offset))
    for clockwise in (True, False):
        theirs = mmcv.ops.box_iou_rotated(turned1, turned2, mode, aligned, clockwise)
        torch.testing.assert_close(theirs, box_iou_rotated(turned1, turned2, mode, aligned, clockwise))
    # mmrotate's evaluation leaves the scores in a sixth column.
    scored = torch.cat([turned1, torch.rand(len(turned1), 1)], 1)
    theirs = mmcv.ops.box_iou_rotated(scored, turned2, mode, aligned)
    torch.testing.assert_close(theirs, box_iou_rotated(turned1, turned2, mode, aligned))
    quads1, quads2 = boxes1[:, [0, 1, 2, 1, 2, 3, 0, 3]], boxes2[:, [0, 1, 2, 1, 2, 3, 0, 3]]
    theirs = mmcv.ops.box_iou_quadri(quads1, quads2, mode, aligned)
    torch.testing.assert_close(theirs, box_iou_quadri(quads1, quads2, mode, aligned))
    torch.testing.assert_close(theirs, bbox_overlaps(boxes1, boxes2, mode, aligned))
    for function, width in ((mmcv.ops.box_iou_rotated, 5), (mmcv.ops.box_iou_quadri, 8), (mmcv.ops.bbox_overlaps, 4)):
        assert function(torch.zeros(0, width), torch.ones(4, width)).shape == (0, 4)


def test_suppression():
    boxes, scores = some_boxes(100, seed=3)
    for options in (
        {},
        {"offset": 1},
        {"score_threshold": 0.4},
        {"max_num": 7},
        {"score_threshold": 0.3, "max_num": 3},
    ):
        dets, kept = mmcv.ops.nms(boxes, scores, 0.4, **options)
        valid = (scores > options.get("score_threshold", -1)).nonzero()[:, 0]
        expected = valid[nms(boxes[valid], scores[valid], 0.4, options.get("offset", 0))][: options.get("max_num")]
        assert torch.equal(kept, expected)
        assert torch.equal(dets, torch.cat([boxes[kept], scores[kept, None]], 1))
    numpy_dets, numpy_kept = mmcv.ops.nms(boxes.numpy(), scores.numpy(), 0.4)
    assert isinstance(numpy_dets, np.ndarray)
    assert numpy_kept.tolist() == nms(boxes, scores, 0.4).tolist()
    for method in ("naive", "linear", "gaussian"):
        dets, kept = mmcv.ops.soft_nms(boxes, scores, 0.3, 0.4, 0.05, method, 1)
        expected_dets, expected = soft_nms(boxes, scores, 0.3, 0.4, 0.05, method, 1)
        assert torch.equal(kept, expected)
        torch.testing.assert_close(dets, expected_dets)
    groups = mmcv.ops.nms_match(torch.cat([boxes, scores[:, None]], 1), 0.3)
    assert [g.tolist() for g in groups] == [g.tolist() for g in nms_match(boxes, scores, 0.3)]
    assert mmcv.ops.nms(boxes[:0], scores[:0], 0.4)[0].shape == (0, 5)
    assert mmcv.ops.soft_nms(boxes[:0], scores[:0])[0].shape == (0, 5)


def test_suppression_of_turned_boxes():
    boxes, scores = some_rotated_boxes(100, seed=3)
    labels = torch.arange(100) % 4
    for clockwise in (True, False):
        for classes in (None, labels):
            dets, kept = mmcv.ops.nms_rotated(boxes, scores, 0.2, classes, clockwise)
            assert torch.equal(kept, nms_rotated(boxes, scores, 0.2, classes, clockwise))
            assert torch.equal(dets, torch.cat([boxes[kept], scores[kept, None]], 1))
    upright = some_boxes(100, seed=4)[0][:, [0, 1, 2, 1, 2, 3, 0, 3]]
    for classes in (None, labels):
        assert torch.equal(
            mmcv.ops.nms_quadri(upright, scores, 0.2, classes)[1], nms_quadri(upright, scores, 0.2, classes)
        )


@pytest.mark.parametrize("kind", ["nms", "soft_nms", "nms_rotated"])
def test_batched_nms(kind):
    """By class, over all classes together, and class after class for many boxes."""
    boxes, scores = (some_rotated_boxes if kind == "nms_rotated" else some_boxes)(90, seed=5)
    classes = torch.arange(90) % 3
    single = getattr(mmcv.ops, kind)
    config = {"type": kind, "iou_threshold": 0.2}
    together = mmcv.ops.batched_nms(boxes, scores, classes, config, class_agnostic=True)[1]
    assert torch.equal(together, single(boxes, scores, 0.2)[1])
    by_class = [(classes == c).nonzero()[:, 0] for c in range(3)]
    expected = sorted(k for member in by_class for k in member[single(boxes[member], scores[member], 0.2)[1]].tolist())
    for split in (10000, 50):
        dets, kept = mmcv.ops.batched_nms(boxes, scores, classes, {**config, "split_thr": split})
        assert sorted(kept.tolist()) == expected
        assert (dets[:-1, -1] >= dets[1:, -1]).all()


def test_polygons():
    points = random(6, 18) * 10 + 30
    quads = some_boxes(6, seed=6)[0][:, [0, 1, 2, 1, 2, 3, 0, 3]]
    torch.testing.assert_close(mmcv.ops.convex_iou(points, quads), convex_iou(points, quads))
    giou, gradient = mmcv.ops.convex_giou(points, quads)
    torch.testing.assert_close(giou, convex_giou(points, quads))
    leaf = points.clone().requires_grad_()
    convex_giou(leaf, quads).sum().backward()
    torch.testing.assert_close(gradient, leaf.grad)
    torch.testing.assert_close(mmcv.ops.min_area_polygons(points), min_area_polygons(points))
    places = points.reshape(-1, 2)
    torch.testing.assert_close(mmcv.ops.points_in_polygons(places, quads), points_in_polygons(places, quads))


def test_differentiable_rotated_iou():
    first, second = (some_rotated_boxes(30, seed=s, size=40)[0] for s in (7, 8))
    second[0] = first[0]  # identical boxes have repeated vertices
    expected = box_iou_rotated(first, second, aligned=True)
    theirs = mmcv.ops.diff_iou_rotated_2d(first[None], second[None])[0]
    torch.testing.assert_close(theirs, expected, atol=1e-4, rtol=1e-3)
    assert (expected > 1e-3).sum() >= 4

    def gradient(function, overlapping):
        leaf = first[overlapping].clone().requires_grad_()
        return torch.autograd.grad(function(leaf, second[overlapping]).sum(), leaf)[0]

    overlapping = (expected > 0.02) & (expected < 0.99)
    torch.testing.assert_close(
        gradient(lambda a, b: mmcv.ops.diff_iou_rotated_2d(a[None], b[None])[0], overlapping),
        gradient(lambda a, b: box_iou_rotated(a, b, aligned=True), overlapping),
        atol=1e-3,
        rtol=1e-2,
    )


def test_points():
    points, centres = random(2, 30, 3), random(2, 5, 3) * 0.5
    distances = torch.cdist(points, points)
    sampled = mmcv.ops.furthest_point_sample_with_dist(distances, 6)
    assert sampled.dtype == torch.int32
    assert sampled[:, 0].tolist() == [0, 0]
    near = mmcv.ops.ball_query(0, 0.8, 4, points, centres + 100)
    assert (near == 0).all()
    assert mmcv.ops.ball_query(0, 0.8, 4, points, points)[:, :, 0].shape == (2, 30)
    order = torch.cdist(centres, points).argsort(-1)
    assert torch.equal(mmcv.ops.knn(4, points, centres, False), order[..., :4].transpose(1, 2).int())
    distance, index = mmcv.ops.three_nn(centres, points)
    assert torch.equal(index, order[..., :3].int())
    torch.testing.assert_close(distance, torch.cdist(centres, points).gather(2, order[..., :3]))
    features, weights = random(2, 4, 30), random(2, 5, 3).softmax(-1)
    index = index.contiguous()
    equal_with_gradients(
        lambda f: mmcv.ops.three_interpolate(f, index, weights),
        lambda f: three_interpolate(f, index, weights),
        features,
    )
    picked = index[..., 0].contiguous()
    equal_with_gradients(lambda f: mmcv.ops.gather_points(f, picked), lambda f: gather_points(f, picked), features)
    equal_with_gradients(lambda f: mmcv.ops.grouping_operation(f, index), lambda f: group_points(f, index), features)
    flat = points[..., :2].contiguous(), centres[..., :2].contiguous()
    equal_with_gradients(lambda *p: mmcv.ops.chamfer_distance(*p)[0], lambda *p: chamfer_distance(*p)[0], *flat)
    equal_with_gradients(lambda *p: mmcv.ops.chamfer_distance(*p)[1], lambda *p: chamfer_distance(*p)[1], *flat)


def test_boxes_and_voxels_of_points():
    points = random(1, 60, 3)
    boxes = torch.tensor([[[0.2, -0.3, -1, 2, 1, 1.5, 0.6], [0, 0, -2, 3, 3, 4, -2.0]]])
    inside = points_in_boxes(points, boxes)
    assert torch.equal(mmcv.ops.points_in_boxes_cpu(points, boxes), inside.int())
    assert torch.equal(mmcv.ops.points_in_boxes_all(points, boxes), inside.int())
    assert torch.equal(mmcv.ops.points_in_boxes_part(points, boxes), first_box_of_points(points, boxes).int())
    size, bounds = [0.5, 0.5, 1.0], [-2.0, -2, -2, 2, 2, 2]
    voxels = mmcv.ops.Voxelization(size, bounds, max_num_points=3, max_voxels=20)(points[0])
    for theirs, ours in zip(voxels, hard_voxelize(points[0], torch.tensor(size), torch.tensor(bounds), 3, 20)):
        torch.testing.assert_close(theirs, ours.to(theirs.dtype))
    cells = mmcv.ops.Voxelization(size, bounds, max_num_points=-1)(points[0])
    assert torch.equal(cells.long(), voxel_coordinates(points[0], torch.tensor(size), torch.tensor(bounds)))


def test_results_do_not_depend_on_autocast():
    exact = mmcv.ops.roi_align(MAPS, ROIS, (3, 2), 0.25)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mmcv.ops.roi_align(MAPS, ROIS, (3, 2), 0.25), exact)


def test_deformable_roi_pooling():
    offset = random(3, 2, 2, 3) * 0.5
    ours = deform_roi_pool(MAPS, ROIS, offset, (2, 3), 0.25, 2, 0.2)
    theirs = mmcv.ops.deform_roi_pool
    equal_with_gradients(
        lambda m, o: theirs(m, ROIS, o, (2, 3), 0.25, 2, 0.2),
        lambda m, o: deform_roi_pool(m, ROIS, o, (2, 3), 0.25, 2, 0.2),
        MAPS,
        offset,
    )
    # Every bin is a bin of an ordinary RoIAlign of the region moved by its offset.
    for r, (image, x1, y1, x2, y2) in enumerate(ROIS.tolist()):
        for row in range(2):
            for column in range(3):
                dx, dy = (0.2 * offset[r, :, row, column] * torch.tensor([x2 - x1, y2 - y1])).tolist()
                moved = torch.tensor([[image, x1 + dx, y1 + dy, x2 + dx, y2 + dy]])
                expected = roi_align(MAPS, moved, (2, 3), 0.25, 2, True)[0, :, row, column]
                torch.testing.assert_close(ours[r, :, row, column], expected, atol=1e-4, rtol=1e-4)
    without = theirs(MAPS, ROIS, None, (2, 3), 0.25, 2, 0.2)
    torch.testing.assert_close(without, roi_align(MAPS, ROIS, (2, 3), 0.25, 2, True))
    pack = mmcv.ops.DeformRoIPoolPack((2, 3), 8, spatial_scale=0.25)
    pack(MAPS, ROIS).sum().backward()
    assert pack.offset_fc[-1].weight.grad.abs().sum() > 0
    assert deform_roi_pool(MAPS, ROIS[:0], offset[:0], (2, 3)).shape == (0, 8, 2, 3)
    x, o = random(1, 2, 7, 6).double().requires_grad_(), (offset[:1] * 0.3).double().requires_grad_()
    region = torch.tensor([[0.0, 1.3, 0.7, 4.9, 5.2]]).double()
    assert torch.autograd.gradcheck(lambda x, o: deform_roi_pool(x, region, o, (2, 3), 1.0, 2), (x, o), atol=1e-4)


def test_slopes_of_deformable_roi_pooling_at_the_border():
    """By mmcv's kernel: linear in the four pixels, whose places are bounded while the sample's is not."""
    features = random(1, 2, 3, 3).double()
    (a, b), (c, d) = features[0, :, :2, :2].sum(0).tolist()
    y, x = -0.5, 0.25
    above = (2 * ((d - c) * y + (b - a) * (1 - y)), 3 * ((d - b) * x + (c - a) * (1 - x)))
    for y1, expected in ((-1.5, above), (1.4, (0.0, 0.0)), (-2.1, (0.0, 0.0))):  # above, on the last row, too far above
        region = torch.tensor([[0.0, -0.25, y1, 1.75, y1 + 3]]).double()
        offset = torch.zeros(1, 2, 1, 1, dtype=torch.float64, requires_grad=True)
        deform_roi_pool(features, region, offset, (1, 1), 1.0, 1, 1.0).sum().backward()
        assert offset.grad.flatten().tolist() == pytest.approx(expected)


def test_synchronised_batch_norm_on_one_device():
    ours = torch.nn.BatchNorm2d(8)
    torch.nn.init.normal_(ours.weight)
    torch.nn.init.normal_(ours.bias)
    function = mmcv.ops.sync_bn.SyncBatchNormFunction
    mean, var = torch.zeros(8), torch.ones(8)

    def theirs(x, weight, bias):
        return function.apply(x, mean, var, weight, bias, 0.1, 1e-5, 0, 1, "default")

    leaves = [MAPS.clone().requires_grad_(), ours.weight, ours.bias]
    expected, result = ours(leaves[0]), theirs(*leaves)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mean, ours.running_mean)
    torch.testing.assert_close(var, ours.running_var)
    pull = random(*expected.shape)
    torch.testing.assert_close(
        torch.autograd.grad(result, leaves, pull), torch.autograd.grad(expected, leaves, pull), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("align_corners", [False, True])
def test_point_sample(align_corners):
    points = torch.rand(2, 9, 2) * 1.2 - 0.1
    equal_with_gradients(
        lambda m, p: mmcv.ops.point_sample(m, p, align_corners=align_corners),
        lambda m, p: point_sample(m, p, align_corners),
        MAPS,
        points,
    )
    grid = points.view(2, 3, 3, 2)
    torch.testing.assert_close(
        point_sample(MAPS, grid, align_corners).flatten(2), point_sample(MAPS, points, align_corners)
    )
