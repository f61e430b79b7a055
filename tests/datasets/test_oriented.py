"""Random orientation and ignored objects: images and boxes turn together, and what leaves the image is lost."""

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmrotate.structures.bbox import RotatedBoxes

from perception.datasets.oriented import IgnoreSmallObjects, RandomOrientation


def scene(boxes, size=(100, 100), labels=None, dtype=np.uint8, kind=RotatedBoxes):
    """An image (H, W, 3) with the boxes painted white, and its annotations."""
    boxes = kind(torch.tensor(boxes, dtype=torch.float32).reshape(-1, kind.box_dim))
    return dict(
        img=painted(boxes, size).astype(dtype),
        img_shape=size,
        gt_bboxes=boxes,
        gt_bboxes_labels=np.zeros(len(boxes), dtype=np.int64) if labels is None else np.array(labels),
        gt_ignore_flags=np.zeros(len(boxes), dtype=bool),
    )


def painted(boxes, size):
    image = np.zeros((*size, 3), dtype=np.uint8)
    for corners in boxes.convert_to("qbox").tensor.view(-1, 4, 2).numpy():
        # Corners are places between pixels, OpenCV's are pixel centres; 4 bits of fraction.
        cv2.fillPoly(image, [np.round((corners - 0.5) * 16).astype(np.int32)], (255, 255, 255), shift=4)
    return image


def angles_of(labels, count=300, **kwargs):
    """The angles that ``count`` images are turned by, counter-clockwise, from a mark that stays in the image."""
    np.random.seed(0)
    turn = RandomOrientation(**kwargs)
    found = []
    for _ in range(count):
        results = turn(scene([[50, 50, 20, 10, 0]], labels=labels))
        found.append(-np.rad2deg(results["gt_bboxes"].tensor[0, 4].item()))
    return np.array(found)


def test_which_angles_are_drawn():
    free = angles_of([3], upright_prob=0.5, upright_labels=(9, 11))
    kinds = [np.isclose(free, 0, atol=1e-4), np.isclose(free, 90, atol=1e-4)]
    assert [kind.mean() for kind in kinds] == pytest.approx([0.25, 0.25], abs=0.06)
    between = free[~(kinds[0] | kinds[1])]
    assert between.min() > 0
    assert between.max() < 90
    assert between.mean() == pytest.approx(45, abs=5)
    upright = angles_of([11], upright_prob=0.5, upright_labels=(9, 11))
    assert set(np.round(upright)) == {0, 90}
    assert set(np.round(angles_of([9], angles=(-90, 180), upright_labels=(9,)))) == {-90, 0, 90, 180}
    assert set(np.round(angles_of([9], angles=(20, 60), upright_labels=(9,)))) == {0}
    assert set(angles_of([0], angles=(0, 0))) == {0}
    with pytest.raises(ValueError, match="within -90 to 180"):
        RandomOrientation(angles=(0, 200))


@pytest.mark.parametrize("size", [(64, 64), (63, 63)])
def test_quarter_turns_move_pixels_without_blurring(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    results = scene([[20, 30, 12, 6, 0.3]], size=size)
    results["img"] = image
    np.random.seed(1)
    turn = RandomOrientation(angles=(90, 90), upright_prob=0)
    results = turn(results)
    assert np.array_equal(results["img"], np.rot90(image))
    expected = torch.tensor([30, size[1] - 20, 12, 6, 0.3 - np.pi / 2])
    torch.testing.assert_close(results["gt_bboxes"].tensor[0], expected.float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(100, 100), (101, 100), (97, 120)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float16])
def test_boxes_follow_the_image(size, dtype):
    np.random.seed(3)
    results = scene([[50, 52, 40, 14, 0.4], [70, 40, 12, 16, -1.1]], size=size, dtype=dtype)
    results = RandomOrientation(angles=(17, 78), upright_prob=0)(results)
    assert results["img"].dtype == dtype
    assert results["img"].shape == (*size, 3)
    seen, told = results["img"].astype(np.float32) > 127, painted(results["gt_bboxes"], size) > 127
    assert (seen & told).sum() / (seen | told).sum() > 0.93
    assert results["gt_bboxes"].tensor.dtype == torch.float32


def test_objects_that_leave_the_image_are_dropped():
    turn = RandomOrientation(angles=(45, 45), upright_prob=0)
    results = turn(scene([[50, 50, 30, 10, 0], [95, 5, 8, 8, 0], [50, 20, 8, 8, 0]], labels=[4, 5, 6]))
    assert results["gt_bboxes_labels"].tolist() == [4, 6]
    assert len(results["gt_bboxes"]) == len(results["gt_ignore_flags"]) == 2
    for share, kept in ((0.45, 1), (0.55, 0)):  # of a box that ends up half outside
        turn = RandomOrientation(angles=(90, 90), upright_prob=0, min_inside=share)
        assert len(turn(scene([[50, 0, 8, 8, 0]]))["gt_bboxes"]) == kept


def test_images_without_objects_and_without_annotations():
    turn = RandomOrientation(angles=(30, 30), upright_prob=0, img_border_value=(1, 2, 3))
    results = turn(scene([]))
    assert results["gt_bboxes"].tensor.shape == (0, 5)
    assert results["img"][0, 0].tolist() == [1, 2, 3]
    bare = turn(dict(img=np.zeros((10, 12, 3), np.uint8), img_shape=(10, 12)))
    assert bare["img"].shape == (10, 12, 3)


def test_small_objects_are_ignored():
    # 1.9 px wide, but its hull is not; a hull of 1.9 px; already ignored; large
    boxes = [[20, 20, 20, 1.9, 0.8], [40, 40, 20, 1.9, 0], [60, 60, 9, 9, 0], [80, 80, 9, 9, 0]]
    results = scene(boxes)
    results["gt_ignore_flags"][2] = True
    assert IgnoreSmallObjects()(results)["gt_ignore_flags"].tolist() == [False, True, True, False]
    assert IgnoreSmallObjects(min_side=30)(results) is None
    assert IgnoreSmallObjects()(scene([])) is None
    upright = scene([[10, 10, 11, 30], [10, 10, 13, 30]], kind=HorizontalBoxes)
    assert IgnoreSmallObjects()(upright)["gt_ignore_flags"].tolist() == [True, False]
