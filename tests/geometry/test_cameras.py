"""Pinhole cameras against formulas by hand, the devkit and the authors' matrices."""

import numpy as np
import pytest
import torch
from nuscenes.utils.geometry_utils import view_points

from perception.geometry import cameras, se3
from perception.geometry.rays import pixel_rays
from tests.conftest import REPOSITORY

RECORDED = torch.load(REPOSITORY / "tests/data/reference/bevformer_v2/data_geometry.pt", weights_only=True)
K = torch.tensor([[1266.0, 0, 816], [0, 1250, 491], [0, 0, 1]], dtype=torch.float64)


def test_projection_is_the_devkits():
    points = torch.randn(50, 3, dtype=torch.float64) * torch.tensor([5.0, 2, 10]) + torch.tensor([0.0, 0, 30])
    theirs = view_points(points.T.numpy(), K.numpy(), normalize=True)
    seen = cameras.project(points, cameras.image_matrix(K, torch.eye(4, dtype=torch.float64)))
    front = points[:, 2] > 0.01
    assert seen.valid.tolist() == (points[:, 2] > 1e-5).tolist()
    np.testing.assert_allclose(seen.pixels[front], theirs[:2].T[front], atol=1e-8)
    np.testing.assert_allclose(seen.depth, points[:, 2])


def test_pixels_return_to_their_points():
    pixels, depth = torch.rand(2, 40, 2, dtype=torch.float64) * 900, torch.rand(2, 40, dtype=torch.float64) * 50 + 1
    points = cameras.unproject(pixels, depth, K)
    again = cameras.project(points, cameras.image_matrix(K, torch.eye(4, dtype=torch.float64)))
    torch.testing.assert_close(again.pixels, pixels)
    torch.testing.assert_close(again.depth, depth)


def test_rays_of_the_renderer_meet_their_pixels():
    """The two descriptions of a pixel agree: its centre is half a pixel from its corner."""
    eye = torch.eye(4, dtype=torch.float64)
    small = cameras.crop_and_resize(K, (0, 0), (0.01, 0.01))
    _, directions = pixel_rays(4, 6, small, eye, convention="opencv")
    seen = cameras.project(directions.view(-1, 3), cameras.image_matrix(small, eye))
    v, u = np.mgrid[:4, :6] + 0.5
    np.testing.assert_allclose(seen.pixels.view(4, 6, 2), np.stack([u, v], -1))
    np.testing.assert_allclose(seen.depth, 1)


def test_a_point_behind_is_not_valid():
    behind = torch.tensor([[0.5, 0.2, -10.0], [0.5, 0.2, 10.0], [0.0, 0.0, 0.0]])
    seen = cameras.project(behind, cameras.image_matrix(K.float(), torch.eye(4)))
    assert seen.valid.tolist() == [False, True, False]
    assert torch.isfinite(seen.pixels).all()


def test_matrices_of_three_by_four_do():
    dtype = torch.float64
    pose = se3.from_quaternion(torch.randn(4, dtype=dtype), torch.randn(3, dtype=dtype))
    wide = torch.cat([K, torch.zeros(3, 1, dtype=dtype)], 1)
    torch.testing.assert_close(cameras.image_matrix(wide, pose), cameras.image_matrix(K, pose))


def test_lidar_to_image_is_the_authors():
    data = RECORDED["dataset"]
    for number, camera in enumerate(data["info_cur"]["cams"].values()):
        lidar_from_camera = se3.compose(camera["sensor2lidar_rotation"], camera["sensor2lidar_translation"])
        camera_from_lidar = se3.invert(lidar_from_camera)
        torch.testing.assert_close(camera_from_lidar, data["lidar2cam_cur"][number])
        matrix = cameras.image_matrix(camera["cam_intrinsic"], camera_from_lidar)
        torch.testing.assert_close(matrix, data["lidar2img_cur"][number], atol=1e-9, rtol=1e-12)


def test_cropped_and_resized_intrinsics_are_the_authors():
    data = RECORDED["ida"]
    for case in data["cases"]:
        changed = cameras.crop_and_resize(data["K"], case["crop"][:2], (case["resize"], case["resize"]))
        torch.testing.assert_close(changed, case["cam2img"])


def test_a_dot_stays_on_its_point_when_the_image_is_cropped_and_resized():
    point = torch.tensor([[2.0, 1.0, 20.0]], dtype=torch.float64)
    eye = torch.eye(4, dtype=torch.float64)
    before = cameras.project(point, cameras.image_matrix(K, eye)).pixels
    changed = cameras.crop_and_resize(K, (30, 260), (0.5, 0.7))
    after = cameras.project(point, cameras.image_matrix(changed, eye)).pixels
    expected = (before - torch.tensor([30.0, 260])) * torch.tensor([0.5, 0.7])
    torch.testing.assert_close(after, expected)


def test_axes_are_switched_exactly():
    pose = se3.from_quaternion(torch.randn(4), torch.randn(3))
    switched = cameras.switch_axes(pose)
    assert torch.equal(switched, pose @ torch.diag(torch.tensor([1.0, -1, -1, 1])))
    assert torch.equal(cameras.switch_axes(switched), pose)
    ahead = switched @ torch.tensor([0.0, 0, -1, 1])  # along the viewing axis of OpenGL
    torch.testing.assert_close(ahead, pose @ torch.tensor([0.0, 0, 1, 1]))


def test_the_border_belongs_to_no_image():
    pixels = torch.tensor([[0.0, 5], [0.1, 5], [9.9, 5], [10, 5], [5, 0], [5, 20.1]])
    assert cameras.inside_image(pixels, 10, 20).tolist() == [False, True, True, False, False, False]


def test_lines_are_cut_at_the_near_plane():
    segments = torch.tensor(
        [[[0.0, 0, -1], [0, 0, 3]], [[1, 1, 2], [3, 1, -2]], [[0, 0, -1], [1, 0, -2]], [[0, 0, 1], [0, 1, 1]]]
    )
    cut, there = cameras.cut_at_near(segments, near=1.0)
    assert there.tolist() == [True, True, False, True]
    assert cut[0].tolist() == [[0, 0, 1], [0, 0, 3]]
    torch.testing.assert_close(cut[1], torch.tensor([[1.0, 1, 2], [1.5, 1, 1]]))
    assert cut[3].tolist() == segments[3].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_is_differentiable(dtype):
    points = torch.tensor([[1.0, 2, 8], [0, 0, -3]], dtype=dtype, requires_grad=True)
    seen = cameras.project(points, cameras.image_matrix(K.to(dtype), torch.eye(4, dtype=dtype)))
    seen.pixels[seen.valid].sum().backward()
    torch.testing.assert_close(points.grad[0], torch.tensor([1266 / 8, 1250 / 8, -(1266 + 2 * 1250) / 64], dtype=dtype))
    assert not points.grad[1].any()
