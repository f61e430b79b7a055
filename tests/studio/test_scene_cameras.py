"""The look at a scene before a run: near and far, poses and projections."""

import math

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

from perception.datasets.synthetic import radiance
from perception.studio.camera_checks import check_cameras
from perception.studio.depth_range import common_point, find_depth_range
from perception.studio.errors import SceneError
from perception.studio.parsers import read_by
from perception.studio.scene_checks import SceneUse
from tests.studio.looked_at import edit, look, move

pytestmark = pytest.mark.xdist_group("nerfstudio")


@pytest.mark.parametrize(("factor", "expected"), [(4.0, (8, 24)), (0.2, (0.4, 1.2)), (1.0, (2, 6)), (1.1, (2, 6))])
def test_near_and_far_follow_the_cameras(copy, factor, expected):
    folder = copy("blender")
    for path in folder.glob("transforms_*.json"):
        edit(path, lambda c: [move(f["transform_matrix"], factor) for f in c["frames"]])
    report = look(folder)
    assert not report.findings.errors
    assert not report.findings.warnings
    assert report.depth_range[:2] == pytest.approx(expected)


def test_stated_near_and_far_must_fit(copy):
    folder = copy("blender")
    report = look(folder, use=SceneUse(near=5.0, far=20.0, bounds_rays=True))
    assert "leave out what 6 of 6 cameras look at, 4 to 4 ahead" in report.findings.errors[0]
    assert "about 2 and 6" in report.findings.errors[0]
    report = look(folder, use=SceneUse(near=6.0, bounds_rays=True))
    assert report.findings.errors == ["near (6) must be at least 0 and below far (6)"]
    edit(folder / "transforms_train.json", lambda c: move(c["frames"][0]["transform_matrix"], 2.0))
    report = look(folder, use=SceneUse(near=2.0, far=6.0, bounds_rays=True))
    assert not report.findings.errors
    assert "what 1 of 6 cameras look at" in report.findings.warnings[0]


def test_far_reaches_what_close_cameras_look_at(scene_layouts):
    config = NerfstudioDataParserConfig(center_method="none", orientation_method="none", auto_scale_poses=False)
    config.data = scene_layouts / "nerfstudio"
    outputs = read_by(config).setup().get_dataparser_outputs("train")
    positions = outputs.cameras.camera_to_worlds[:, :, 3]
    near, far, _ = find_depth_range(config, outputs)
    assert far == float(torch.cdist(positions, positions).max())
    assert near == pytest.approx(0.05 * far)
    poses = [radiance.look_at_origin(np.array([np.cos(a), np.sin(a), 0.3]) / np.hypot(1, 0.3)) for a in (0, 0.2, 0.4)]
    outputs.cameras = Cameras(torch.tensor(np.stack(poses))[:, :3].float(), 20.0, 20.0, 10.0, 10.0, 20, 20)
    assert find_depth_range(config, outputs).far == pytest.approx(6, rel=1e-3)


def test_common_point():
    positions = torch.tensor([[4.0, 1, 2], [1, 5, 2], [1, 1, 6]], dtype=torch.float64)
    target = torch.tensor([1.0, 1, 2], dtype=torch.float64)
    forward = torch.nn.functional.normalize(target - positions, dim=-1)
    torch.testing.assert_close(common_point(positions, forward), target)
    assert common_point(positions, forward[:1].expand(3, 3)) is None


def test_cameras_with_opencv_axes_are_recognised(copy):
    folder = copy("blender")

    def turn(content):
        for frame in content["frames"]:
            for row in frame["transform_matrix"][:3]:
                row[1], row[2] = -row[1], -row[2]

    edit(folder / "transforms_train.json", turn)
    assert "the poses may have OpenCV axes" in look(folder).findings.errors[0]
    edit(folder / "transforms_train.json", lambda c: [move(f["transform_matrix"], 0.0) for f in c["frames"]])
    assert "all stand at one place" in look(folder).findings.errors[0]


def test_odd_projections_are_remarked_on(copy):
    folder = copy("blender")
    edit(folder / "transforms_train.json", lambda c: c.update(camera_angle_y=0.4, cx=25.0))
    report = look(folder)
    assert not report.findings.errors
    first, second, *others = report.findings.warnings
    assert "principal point at (25, 10), outside the image (and 5 more of this kind)" in first
    assert "focal lengths 27.778 and 49.332 pixels, as if pixels were not square" in second
    assert all("outlines" in other for other in others)  # which then do not agree, either


def test_places_that_single_precision_cannot_tell_apart(scene_layouts):
    config = NerfstudioDataParserConfig(data=scene_layouts / "nerfstudio")
    outputs = read_by(config).setup().get_dataparser_outputs("train")
    outputs.cameras.camera_to_worlds[:, :, 3] += torch.tensor([5e5, 5e6, 0.0])
    with pytest.raises(SceneError, match=r"around \[500000\.0, 5000000\.0, -?0\.0\], where single precision"):
        check_cameras(outputs.cameras, outputs.image_filenames)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_a_scene_box_has_a_volume(scale, scene_layouts):
    errors = look(scene_layouts / "nerfstudio", NerfstudioDataParserConfig(scene_scale=scale)).findings.errors
    assert any("has no volume: correct" in error for error in errors)
