"""Averages of poses and the spiral of forward-facing scenes."""

import math

import numpy as np
import pytest
import torch

from perception.geometry.poses import average_pose, look_pose, spiral_poses
from perception.geometry.se3 import compose, invert


def poses(count: int = 7) -> torch.Tensor:
    """Cameras that look roughly along one direction, anywhere."""
    skew = 0.15 * torch.randn(count, 3, 3, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turn = turn * torch.det(turn)
    rotation = turn @ torch.matrix_exp(skew - skew.transpose(1, 2))
    return compose(rotation, torch.randn(count, 3, dtype=torch.float64) + 4)


def test_the_average_is_that_of_the_loader():
    given = poses()[:, :3].numpy()
    z = given[:, :, 2].sum(0)
    z = z / np.linalg.norm(z)
    x = np.cross(given[:, :, 1].sum(0), z)
    x = x / np.linalg.norm(x)
    expected = np.stack([x, np.cross(z, x), z, given[:, :3, 3].mean(0)], -1)
    np.testing.assert_allclose(
        average_pose(compose(torch.from_numpy(given[:, :, :3]), torch.from_numpy(given[:, :, 3])))[:3],
        expected,
        atol=1e-12,
    )


def test_recentred_poses_average_to_the_identity():
    given = poses()
    recentred = invert(average_pose(given)) @ given
    torch.testing.assert_close(average_pose(recentred), torch.eye(4, dtype=torch.float64))
    distances = torch.cdist(given[:, :3, 3], given[:, :3, 3])
    torch.testing.assert_close(torch.cdist(recentred[:, :3, 3], recentred[:, :3, 3]), distances)


def test_viewing_directions_that_cancel():
    """Sixteen cameras on a circle that look at its centre: their mean direction is a rounding error."""
    angles = torch.arange(16, dtype=torch.float64) * (2 * math.pi / 16)
    places = torch.stack([angles.cos(), torch.zeros(16, dtype=torch.float64), angles.sin()], -1)
    up = torch.tensor([0.0, 1, 0], dtype=torch.float64)
    ring = torch.stack([look_pose(place, up, place) for place in places])
    average = average_pose(ring)
    torch.testing.assert_close(average[:3, :3], ring[0, :3, :3])
    torch.testing.assert_close(average[:3, 3], torch.zeros(3, dtype=torch.float64))
    standing = ring[:, :, [0, 2, 1, 3]] * torch.tensor([1.0, -1, 1, 1])  # all look down: up is level and cancels
    average = average_pose(standing)
    torch.testing.assert_close(average[:3, :3].T @ average[:3, :3], torch.eye(3, dtype=torch.float64))


def test_a_spiral_goes_around_the_middle_and_looks_at_one_point():
    given = poses(30)
    given = invert(average_pose(given)) @ given
    near, far = 1.5, 12.0
    path = spiral_poses(given, near, far, views=8)
    radii = torch.from_numpy(np.percentile(np.abs(given[:, :3, 3].numpy()), 90, axis=0))
    quarter = path[2, :3, 3] / radii  # a quarter turn: cos 0, -sin 1, and half as far along the axis
    torch.testing.assert_close(quarter, torch.tensor([0.0, -1, -0.5], dtype=torch.float64), atol=1e-12, rtol=0)
    focus = 1 / (0.25 / (0.9 * near) + 0.75 / (5 * far))
    to_focus = torch.tensor([0.0, 0, -focus], dtype=torch.float64) - path[:, :3, 3]
    torch.testing.assert_close(-path[:, :3, 2], torch.nn.functional.normalize(to_focus, dim=-1))
    torch.testing.assert_close(torch.det(path[:, :3, :3]), torch.ones(8, dtype=torch.float64))
    assert bool((path[:, 1, 1] > 0.5).all())  # upright
    with pytest.raises(ValueError, match="near"):
        spiral_poses(given, 0.0, far)
