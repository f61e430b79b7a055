"""Boxes drawn in images and from above: lines are where the boxes are, and what lies behind is not drawn."""

import numpy as np
import pytest
import torch

from perception.datasets.pictures_3d import draw_wire_frames, view_from_above
from perception.geometry import boxes3d, cameras

K = torch.tensor([[100.0, 0, 100], [0, 100, 60], [0, 0, 1]])
CAMERA_FROM_VEHICLE = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 1.5], [1, 0, 0, 0], [0, 0, 0, 1]])
MATRIX = cameras.image_matrix(K, CAMERA_FROM_VEHICLE)
BLACK = np.zeros((120, 200, 3), np.uint8)
RED, GREEN = (255, 0, 0), (0, 255, 0)


def test_lines_end_at_projected_corners():
    box = torch.tensor([[12.0, 1, 1, 4, 2, 2, 0.4]])
    picture = draw_wire_frames(BLACK, box, MATRIX, [RED])
    rows, columns = np.nonzero(picture[..., 0] > 60)
    pixels = cameras.project(boxes3d.corners(box)[0], MATRIX).pixels.numpy()
    drawn = np.stack([columns, rows], 1) + 0.5
    np.testing.assert_allclose(drawn.min(0), pixels.min(0), atol=1.5)
    np.testing.assert_allclose(drawn.max(0), pixels.max(0), atol=1.5)
    assert not BLACK.any()
    assert not picture[..., 1].any()


def test_only_the_box_ahead_is_drawn():
    ahead = torch.tensor([[10.0, 0, 1, 2, 2, 2, 0]])
    behind = torch.tensor([[-10.0, 0, 1, 2, 2, 2, 0]])
    both = draw_wire_frames(BLACK, torch.cat([ahead, behind]), MATRIX, [RED, GREEN])
    np.testing.assert_array_equal(both, draw_wire_frames(BLACK, ahead, MATRIX, [RED]))
    assert not draw_wire_frames(BLACK, behind, MATRIX, [GREEN]).any()
    assert not draw_wire_frames(BLACK, behind[:0], MATRIX, []).any()


def test_a_box_beside_the_camera_is_cut():
    beside = torch.tensor([[2.0, 2.5, 1, 12, 2, 2, 0]])  # from 4 m behind to 8 m ahead
    picture = draw_wire_frames(BLACK, beside, MATRIX, [RED])
    columns = np.nonzero(picture.any((0, 2)))[0]
    assert columns.min() == 0
    assert columns.max() < 100  # to the left, and nothing mirrored to the right


@pytest.mark.parametrize(("forward", "place"), [("x", [10.0, 5]), ("y", [-5.0, 10])])
def test_ahead_is_up_and_left_is_left(forward, place):
    yaw = 0.0 if forward == "x" else np.pi / 2
    boxes = torch.tensor([[*place, 1, 4, 2, 2, yaw, 0, 0]])
    picture = view_from_above(np.array([[*place, 0.0]]), boxes, [RED], reach=20, size=200, forward=forward)
    red = np.stack(np.nonzero((picture[..., 0] > 200) & (picture[..., 1] < 160)), 1)
    np.testing.assert_allclose((red.min(0) + red.max(0) + 1) / 2, [100 - 50, 100 - 25], atol=1.5)
    assert red[:, 0].mean() < 49  # the line of the heading is in its front half
    assert np.ptp(red[:, 0]) > np.ptp(red[:, 1])  # its length lies along the way ahead
    with pytest.raises(ValueError, match="forward"):
        view_from_above(np.zeros((0, 3)), boxes, [RED], forward="z")


def test_points_are_where_they_are():
    picture = view_from_above(np.array([[4.95, -9.95, 0], [99, 0, 0]]), torch.zeros(0, 7), [], reach=10, size=200)
    assert np.argwhere((picture != 255).any(-1)).tolist() == [[50, 199]]
