"""Camera paths of nerfstudio's viewer."""

import json

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import CameraType

from perception.datasets.synthetic import radiance
from perception.studio.camera_paths import read_camera_path
from perception.studio.errors import SceneError

pytestmark = pytest.mark.xdist_group("nerfstudio")
POSES = radiance.cameras_of(radiance.Params())["test"][:2]


def write(folder, poses=POSES, **changes):
    frames = [{"camera_to_world": np.asarray(pose).reshape(-1).tolist(), "fov": 90.0, "aspect": 1.0} for pose in poses]
    content = {"camera_type": "perspective", "render_height": 20.0, "render_width": 30, "camera_path": frames}
    path = folder / "path.json"
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_cameras_are_those_of_the_file(tmp_path):
    frames = read_camera_path(write(tmp_path))
    (cameras,) = frames.eyes
    assert len(frames) == 2
    np.testing.assert_allclose(cameras.camera_to_worlds, POSES[:, :3], atol=1e-6)
    assert cameras.fx[0].item() == pytest.approx(10)  # 90 degrees over 20 rows
    assert (int(cameras.height[0]), int(cameras.width[0])) == (20, 30)
    assert frames.crop is None
    assert frames.background is None


def test_times_are_numbers(tmp_path):
    frame = {"camera_to_world": POSES[0].reshape(-1).tolist(), "fov": 90.0, "aspect": 1.0, "render_time": "0.5"}
    with pytest.raises(SceneError, match=r"pose 0: render_time must be a number, not '0.5'"):
        read_camera_path(write(tmp_path, camera_path=[frame]))


def test_the_size_of_an_object_does_not_turn_its_cameras(tmp_path):
    scaled = POSES.copy()
    scaled[:, :3, :3] *= 2.5
    (cameras,) = read_camera_path(write(tmp_path, scaled)).eyes
    np.testing.assert_allclose(cameras.camera_to_worlds, POSES[:, :3], atol=1e-6)


@pytest.mark.parametrize(("kind", "shape"), [("omnidirectional", (40, 30)), ("VR180", (20, 60))])
def test_stereo_cameras_have_two_eyes(tmp_path, kind, shape):
    frames = read_camera_path(write(tmp_path, camera_type=kind))
    types = [CameraType(int(eye.camera_type[0])).name[-2:] for eye in frames.eyes]
    assert types == ["_L", "_R"]
    rays = [eye.generate_rays(camera_indices=0, keep_shape=True) for eye in frames.eyes]
    apart = (rays[0].origins - rays[1].origins).norm(dim=-1)
    torch.testing.assert_close(apart, torch.full_like(apart, 0.064), atol=1e-4, rtol=0)  # between two eyes, in metres
    left, right = torch.zeros(20, 30, 3), torch.ones(20, 30, 3)
    joined = frames.join([left, right])
    assert joined.shape[:2] == shape
    assert not joined[:20, :30].any()


def test_a_crop_is_a_box_and_its_colour(tmp_path):
    crop = {
        "crop_center": [1, 0, 0],
        "crop_scale": [2, 4, 6],
        "crop_rot": [0, 0, np.pi / 2],
        "crop_bg_color": {"r": 0, "g": 51, "b": 255},
    }
    frames = read_camera_path(write(tmp_path, crop=crop))
    points = torch.tensor([[1.0, 0, 0], [2.9, 0, 0], [1, 1.5, 0], [1, 0, 2.9]])
    assert frames.crop.within(points).tolist() == [True, True, False, True]  # turned by a quarter about z
    torch.testing.assert_close(frames.background, torch.tensor([0, 0.2, 1]))
    crop.pop("crop_rot")
    assert read_camera_path(write(tmp_path, crop=crop)).crop.within(points).tolist() == [True, False, True, True]


def test_nothing_is_guessed(tmp_path):
    with pytest.raises(SceneError, match=r"camera_type must be one of perspective, .*vr180, not 'pinhole'"):
        read_camera_path(write(tmp_path, camera_type="pinhole"))
    with pytest.raises(SceneError, match="pose 0: camera_to_world has 12 numbers"):
        read_camera_path(write(tmp_path, POSES[:, :3]))
    with pytest.raises(SceneError, match="camera path without poses"):
        read_camera_path(write(tmp_path, []))
