"""Rigid motions against scipy, pyquaternion and kornia."""

import kornia
import numpy as np
import pytest
import torch
from pyquaternion import Quaternion
from scipy.spatial.transform import Rotation, Slerp

from perception.geometry import se3


@pytest.fixture
def quaternions():
    """(w, x, y, z), among them turns by half a circle, where no branch may divide by nothing."""
    random = torch.nn.functional.normalize(torch.randn(200, 4, dtype=torch.float64), dim=-1)
    special = torch.eye(4, dtype=torch.float64)
    close = torch.nn.functional.normalize(torch.tensor([[1e-9, 1.0, 1e-9, 0], [1e-8, 0, 0.6, 0.8]]).double(), dim=-1)
    return torch.cat([random, special, close])


def scipy_rotations(quaternions):
    return Rotation.from_quat(quaternions.numpy()[:, [1, 2, 3, 0]])


def test_matrices_are_those_of_scipy_and_the_devkits_quaternions(quaternions):
    matrices = se3.quaternion_to_matrix(quaternions)
    np.testing.assert_allclose(matrices, scipy_rotations(quaternions).as_matrix(), atol=1e-14)
    np.testing.assert_allclose(matrices, [Quaternion(q.tolist()).rotation_matrix for q in quaternions], atol=1e-14)
    torch.testing.assert_close(se3.quaternion_to_matrix(3 * quaternions), matrices)


def test_quaternions_come_back(quaternions):
    back = se3.matrix_to_quaternion(se3.quaternion_to_matrix(quaternions))
    assert (back[:, 0] >= 0).all()
    assert (back * quaternions).sum(-1).abs().min() > 1 - 1e-15
    general = quaternions[:200]
    theirs = kornia.geometry.conversions.rotation_matrix_to_quaternion(se3.quaternion_to_matrix(general))
    assert (theirs * back[:200]).sum(-1).abs().min() > 1 - 1e-7


def test_gradients_flow_through_rotations():
    angle = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q: se3.matrix_to_quaternion(se3.quaternion_to_matrix(q)), angle)


def test_inverse_and_points(quaternions):
    pose = se3.from_quaternion(quaternions, torch.randn(len(quaternions), 3, dtype=torch.float64))
    torch.testing.assert_close(se3.invert(pose), torch.linalg.inv(pose))
    points = torch.randn(len(quaternions), 7, 3, dtype=torch.float64)
    moved = se3.transform_points(pose, points)
    expected = np.stack([r.apply(p) for r, p in zip(scipy_rotations(quaternions), points.numpy())])
    np.testing.assert_allclose(moved, expected + pose[:, None, :3, 3].numpy(), atol=1e-13)
    torch.testing.assert_close(se3.transform_points(se3.invert(pose), moved), points)
    torch.testing.assert_close(se3.transform_points(pose[3], points[3]), moved[3])


@pytest.mark.parametrize("share", [0.0, 0.25, 0.7, 1.0])
def test_slerp_is_that_of_scipy_and_of_the_devkit(quaternions, share):
    one, two = quaternions[:100], quaternions[100:200]
    ours = se3.slerp(one, two, share)
    for a, b, q in zip(one, two, ours):
        theirs = Quaternion.slerp(Quaternion(a.tolist()), Quaternion(b.tolist()), share)
        assert abs(float(q @ torch.tensor(theirs.elements))) > 1 - 1e-12
        rotation = Slerp([0, 1], Rotation.from_quat([a.numpy()[[1, 2, 3, 0]], b.numpy()[[1, 2, 3, 0]]]))(share)
        np.testing.assert_allclose(se3.quaternion_to_matrix(q), rotation.as_matrix(), atol=1e-12)


def test_slerp_of_what_is_nearly_the_same():
    one = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    for angle in (0.0, 1e-9, 1e-5):
        two = torch.tensor([np.cos(angle / 2), 0, 0, np.sin(angle / 2)])
        middle = se3.slerp(one, -two, 0.5)  # the other sign is the same rotation
        assert float(middle[3]) == pytest.approx(np.sin(angle / 4), rel=1e-6, abs=1e-16)


def test_interpolated_pose():
    yaw = torch.tensor([0.2, 1.2], dtype=torch.float64)
    poses = se3.compose(se3.rotation_about_z(yaw), torch.tensor([[0.0, 0, 0], [4, 2, 0]], dtype=torch.float64))
    at = se3.interpolate(poses[0], poses[1], torch.tensor([0.0, 0.25, 1.0, 1.5], dtype=torch.float64))
    torch.testing.assert_close(se3.heading(at), torch.tensor([0.2, 0.45, 1.2, 1.7], dtype=torch.float64))
    torch.testing.assert_close(at[:, 0, 3], torch.tensor([0.0, 1, 4, 6], dtype=torch.float64))
