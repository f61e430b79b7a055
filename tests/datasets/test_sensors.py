"""Rays of cameras and of a LiDAR: leaving out what cannot be met changes nothing; bodies move as they should."""

import numpy as np
import pytest
import torch

from perception.datasets.synthetic import radiance
from perception.datasets.synthetic.driving_rigs import kitti_rig, nuscenes_rig
from perception.datasets.synthetic.driving_view import pose_of_ego
from perception.datasets.synthetic.driving_world import sample_scene
from perception.datasets.synthetic.motion import Body, Path, planar_pose, scene_at
from perception.datasets.synthetic.raycasting import Box, Scene, Sphere, Texture
from perception.geometry import cameras

PLAIN = Texture("plain", (1.0, 0.5, 0.2), (0.0, 0.0, 0.0), 1.0)
RIG = nuscenes_rig(64, 36, 90)


@pytest.fixture(scope="module")
def world():
    return sample_scene(np.random.default_rng(4), 3.0, 3)


def test_hits_name_their_solid():
    scene = Scene((Sphere((0, 0, 0), 1.0, PLAIN), Box((3.0, 0, 0), (0.5, 1, 1), 0.3, PLAIN)))
    hits = scene.cast(np.array([[-5.0, 0, 0], [9, 0, 0], [0, 0, 9]]), np.array([[1.0, 0, 0], [-1, 0, 0], [0, 0, 1]]))
    assert hits.solid.tolist() == [0, 1, -1]


def test_scenes_of_radiance_fields_are_what_they_were():
    params = radiance.Params(num_train=3, num_val=1, num_test=2, size=32, num_objects=4)
    scene, poses = radiance.scene_of(params), radiance.cameras_of(params)["train"]
    views = [radiance.render(scene, pose, 32, params.focal) for pose in poses]
    assert [int(view.rgba.sum()) for view in views] == [161789, 184099, 204725]


@pytest.mark.parametrize("number", range(6))
def test_a_camera_misses_nothing(world, number):
    camera = RIG.cameras[number]
    scene, _ = scene_at(1.0, world.still, world.bodies)
    pose = pose_of_ego(world, 1.0) @ camera.ego_from_camera
    rays = camera.rays(pose, 2)
    candidates = camera.candidates(scene, pose, 2)
    whole, part = scene.cast(*rays), scene.cast_among(*rays, candidates)
    for one, two in zip(whole, part):
        np.testing.assert_array_equal(one, two)
    assert sum(map(len, candidates)) < 0.3 * len(scene.solids) * len(rays[0])


@pytest.mark.parametrize("rig", [RIG, kitti_rig(64, 36, 90)])
def test_a_lidar_misses_nothing(world, rig):
    scene, _ = scene_at(0.5, world.still, world.bodies)
    pose = pose_of_ego(world, 0.5) @ rig.lidar.ego_from_lidar
    rays = rig.lidar.rays(pose)
    candidates = rig.lidar.candidates(scene, pose)
    whole, part = scene.cast(*rays), scene.cast_among(*rays, candidates)
    for one, two in zip(whole, part):
        np.testing.assert_array_equal(one, two)
    assert sum(map(len, candidates)) < 0.2 * len(scene.solids) * len(rays[0])

    found = rig.lidar.scan(scene, pose, np.random.default_rng(1))
    distance = np.linalg.norm(found.points.astype(np.float64), axis=-1)
    np.testing.assert_allclose(
        np.arcsin(found.points[:, 2] / distance), np.array(rig.lidar.elevations)[found.ring], atol=1e-6
    )
    column = np.floor((np.arctan2(*found.points[:, [1, 0]].T) + np.pi) / (2 * np.pi) * 90).astype(int)
    beams = found.ring * 90 + column
    np.testing.assert_array_equal(found.solid, whole.solid[beams])
    error = distance - whole.parameter[beams]
    assert abs(error.mean()) < 0.002
    assert 0.018 < error.std() < 0.022
    returned = np.isfinite(whole.parameter) & (whole.parameter < rig.lidar.reach)
    assert 0.93 < len(found.points) / returned.sum() < 0.97


def test_rays_go_through_their_pixels():
    camera = RIG.cameras[1]
    pose = planar_pose(5.0, -3.0, 0.7) @ camera.ego_from_camera
    origins, directions = camera.rays(pose, 2)
    points = torch.from_numpy(origins + 7 * directions)
    matrix = cameras.image_matrix(torch.from_numpy(camera.intrinsics), torch.from_numpy(np.linalg.inv(pose)))
    seen = cameras.project(points, matrix)
    pixels = seen.pixels.view(36, 64, 4, 2)
    np.testing.assert_allclose(pixels[10, 20], [[20.25, 10.25], [20.75, 10.25], [20.25, 10.75], [20.75, 10.75]])
    np.testing.assert_allclose(seen.depth, 7)


def test_silhouettes_look_through_what_stands_before():
    scene = Scene((Sphere((5, 0, 0), 1.0, PLAIN), Sphere((10, 0, 0), 1.0, PLAIN)))
    directions = np.stack([np.ones(50), np.linspace(-0.3, 0.3, 50), np.zeros(50)], 1)
    everywhere = [np.arange(50)] * 2
    first, second = scene.silhouettes(np.zeros((50, 3)), directions, everywhere)
    assert set(second) < set(first)
    hits = scene.cast_among(np.zeros((50, 3)), directions, everywhere)
    assert not (hits.solid == 1).any()


def test_a_path_is_what_many_small_steps_make():
    path = Path((1.0, 2.0, 0.4), 3.0, ((4.0, 0.0), (6.0, 0.2), (3.0, -0.5)))
    x, y, heading = path.start
    steps, dt = 40_000, 6.0 / 40_000
    for k in range(steps):
        way = 3.0 * (k + 0.5) * dt
        curvature = 0.0 if way < 4 else 0.2 if way < 10 else -0.5 if way < 13 else 0.0
        heading += 3.0 * dt * curvature / 2
        x, y = x + 3.0 * dt * np.cos(heading), y + 3.0 * dt * np.sin(heading)
        heading += 3.0 * dt * curvature / 2
    np.testing.assert_allclose(path.at(6.0), (x, y, heading), atol=1e-3)
    np.testing.assert_allclose(path.at(-1.0), (1 - 3 * np.cos(0.4), 2 - 3 * np.sin(0.4), 0.4))


def test_bodies_carry_their_solids_and_patterns():
    striped = Texture("checks", (1.0, 1, 1), (0.0, 0, 0), 0.5)
    body = Body(
        (Box((1.0, 0.5, 1.0), (0.4, 0.3, 0.2), 0.1, striped), Sphere((-1, 0, 0.5), 0.3, striped)), Path((0, 0, 0.3), 2)
    )
    box, ball = body.placed(1.5)
    pose = planar_pose(3 * np.cos(0.3), 3 * np.sin(0.3), 0.3)
    np.testing.assert_allclose(box.centre, pose[:3, :3] @ [1, 0.5, 1] + pose[:3, 3])
    np.testing.assert_allclose(ball.centre, pose[:3, :3] @ [-1, 0, 0.5] + pose[:3, 3])
    assert box.angle == pytest.approx(0.4)
    corner = body.solids[0].corners()
    np.testing.assert_allclose(box.corners(), corner @ pose[:3, :3].T + pose[:3, 3])
    np.testing.assert_allclose(box.local(box.corners()), body.solids[0].local(corner), atol=1e-12)
