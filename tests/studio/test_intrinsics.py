"""Intrinsics as files state them."""

import math

import pytest
import torch
from nerfstudio.cameras.cameras import CameraType

from perception.studio.errors import SceneError
from perception.studio.intrinsics import fit_size, stated_intrinsics
from perception.studio.nsvf_intrinsics import read_intrinsics

pytestmark = pytest.mark.xdist_group("nerfstudio")
SIZE = (80, 60)  # width, height
ANGLE = 2 * math.atan(0.5)  # of an image whose focal length is its side


def intrinsics(meta, frame=None, size=SIZE):
    return stated_intrinsics(meta, frame or {}, size, "f.json: frame 0")


def test_an_angle_alone_gives_a_centred_camera():
    made = intrinsics({"camera_angle_x": ANGLE})
    assert (made.fx, made.fy) == (pytest.approx(80), pytest.approx(80))
    assert made[2:6] == (40, 30, 80, 60)
    assert not any(made.distortion)


def test_everything_stated_is_used():
    stated = {"fl_x": 90.0, "fl_y": 85.0, "cx": 31.5, "cy": 29.0, "w": 80, "h": 60, "k1": 0.1, "p2": -0.02}
    made = intrinsics(stated)
    assert made[:6] == (90, 85, 31.5, 29, 80, 60)
    assert made.distortion == pytest.approx((0.1, 0, 0, 0, 0, -0.02))
    assert intrinsics({"camera_angle_x": ANGLE, "camera_angle_y": ANGLE}).fy == pytest.approx(60)
    assert intrinsics({**stated, "camera_angle_y": ANGLE / 2}).fy == 85  # as Blender gives it, of the sensor
    assert intrinsics({"x_fov": math.degrees(ANGLE)}).fx == pytest.approx(80)
    assert intrinsics({"fl_x": 70, "camera_model": "OPENCV_FISHEYE"}).camera_type is CameraType.FISHEYE


def test_a_frame_goes_before_the_scene():
    scene = {"fl_x": 90.0, "cx": 31.5, "k1": 0.1}
    made = intrinsics(scene, {"camera_angle_x": ANGLE, "cx": 38.0})
    assert (made.fx, made.cx, made.distortion[0]) == (pytest.approx(80), 38, pytest.approx(0.1))


def test_numbers_belong_to_the_stated_size():
    stated = {"fl_x": 90.0, "fl_y": 84.0, "cx": 30.0, "cy": 26.0, "w": 80, "h": 60}
    assert intrinsics(stated, size=(40, 30))[:6] == (45, 42, 15, 13, 40, 30)
    uneven = intrinsics({"camera_angle_x": ANGLE, "w": 99, "h": 66}, size=(25, 17))  # a quarter, rounded up
    assert uneven.fx == pytest.approx(25)
    assert uneven.fy == pytest.approx(99 * 17 / 66)
    with pytest.raises(SceneError, match=r"image is 60 x 80 pixels, but its camera 80 x 60"):
        intrinsics(stated, size=(60, 80))


@pytest.mark.parametrize(
    ("stated", "sentence"),
    [
        ({}, "states no focal length"),
        ({"fl_x": 0}, "fl_x must be a positive number of pixels, not 0"),
        ({"fl_x": "80"}, "fl_x must be a positive number of pixels, not '80'"),
        ({"fl_x": 80, "cx": math.nan}, "cx must be a finite number, not nan"),
        ({"fl_x": 80, "camera_angle_x": ANGLE / 2}, "two focal lengths, 80 by fl_x and 169.4.* by camera_angle_x"),
        ({"camera_angle_x": 3.5}, "between 0 and pi radians, not 3.5"),
        ({"x_fov": 190}, "between 0 and 180 degrees"),
        ({"fl_x": 80, "camera_model": "THIN"}, "camera_model 'THIN'; known are .*OPENCV_FISHEYE"),
        ({"fl_x": 80, "distortion_params": [1, 2]}, "six numbers"),
    ],
)
def test_what_cannot_be_used_is_refused(stated, sentence):
    with pytest.raises(SceneError, match=rf"^f\.json: frame 0.*{sentence}"):
        intrinsics(stated)


def test_sizes_that_fit():
    assert fit_size((99, 66), (25, 17))
    assert fit_size((99, 66), (24, 16))
    assert not fit_size((99, 66), (30, 17))


def test_nsvf_lines(tmp_path):
    path = tmp_path / "intrinsics.txt"
    path.write_text("90 30 26 0.\n0. 0. 0.\n0.3\n1.\n60 80\n")  # the size is height, width
    stated = read_intrinsics(path)
    assert (stated.fx, stated.fy, stated.centre, stated.size, stated.near) == (90, 90, (30, 26), (80, 60), 0.3)
    cameras = stated.cameras(torch.eye(4)[None, :3], [(40, 30)])
    assert [float(part) for part in (cameras.fx, cameras.fy, cameras.cx, cameras.cy)] == [45, 45, 15, 13]
    path.write_text("90\n")
    assert read_intrinsics(path).centre is None


def test_nsvf_matrix(tmp_path, capsys):
    path = tmp_path / "intrinsics.txt"
    path.write_text("90 0 30 0\n0 80 26 0\n0 0 1 0\n0 0 0 1\n")
    stated = read_intrinsics(path)
    assert (stated.fx, stated.fy, stated.centre, stated.is_matrix, stated.near_of(7.0)) == (90, 80, (30, 26), True, 0)
    with pytest.raises(SceneError, match="in images of 30 x 26 pixels: do its numbers belong to images of 60 x 52"):
        stated.cameras(torch.eye(4)[None, :3], [(30, 26)])
    capsys.readouterr()
    stated.cameras(torch.eye(4)[None, :3], [(45, 39)])
    assert "belong to images of 60 x 52" in " ".join(capsys.readouterr().out.split())
    path.write_text("90 2 30\n0 80 26\n0 0 1\n")
    with pytest.raises(SceneError, match="skew of 2 pixels"):
        read_intrinsics(path)
