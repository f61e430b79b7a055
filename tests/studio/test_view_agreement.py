"""Poses in another convention than the layout's: only the pictures tell."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from PIL import Image

from perception.datasets.synthetic import radiance, shelves
from perception.studio.llff_dataparser import LLFFDataParserConfig
from perception.studio.parsers import read_by
from perception.studio.scene_checks import PLAIN_USE, check_scene
from tests.studio.llff_scenes import PARAMS, edit, images

pytestmark = pytest.mark.xdist_group("nerfstudio")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llff") / "scene"
    shelves.write(folder, PARAMS)
    return folder


@pytest.fixture
def copy(scene, tmp_path):
    return shutil.copytree(scene, tmp_path / "scene")


def look(config):
    return check_scene(read_by(config).setup(), ("train",), PLAIN_USE, background=torch.ones(3))


def as_matrices(change):
    """A change of the 3 x 4 matrices of all rows."""

    def edited(table):
        matrices = table[:, :15].reshape(-1, 3, 5)
        matrices[:, :, :4] = change(matrices[:, :, :4].copy())
        table[:, :15] = matrices.reshape(-1, 15)

    return edited


def inverted(matrices):
    whole = np.concatenate([matrices, np.broadcast_to([[[0.0, 0, 0, 1]]], (len(matrices), 1, 4))], 1)
    return np.linalg.inv(whole)[:, :3]


def right_up_back(matrices):
    return np.stack([matrices[..., 1], -matrices[..., 0], matrices[..., 2], matrices[..., 3]], -1)


def right_down_forward(matrices):
    return right_up_back(matrices) * [1, -1, -1, 1]


CONVENTIONS = {
    "right, up, back": (right_up_back, "if the columns were right, up, backwards"),
    "OpenCV": (right_down_forward, r"if the columns were right, down, forwards \(OpenCV\)"),
    "inverted": (inverted, "if the poses were world-to-camera:"),
    "COLMAP": (lambda matrices: inverted(right_down_forward(matrices)), "world-to-camera with OpenCV axes"),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_rows_in_another_convention(copy, name):
    change, sentence = CONVENTIONS[name]
    edit(copy, as_matrices(change))
    report = look(LLFFDataParserConfig(data=copy, downscale_factor=4))
    assert not report.findings.errors  # they are rigid and of the right size
    (warning,) = report.findings.warnings
    assert pytest.approx(float(warning.split("instead of ")[1][:4]), abs=0.01) == report.agreement.correlation
    assert report.agreement.correlation < 0.5
    assert re.search(sentence, warning)


def test_nothing_is_said_of_what_is_right(scene):
    for factor in (1, 4):
        report = look(LLFFDataParserConfig(data=scene, downscale_factor=factor))
        assert not report.findings.warnings
        assert report.agreement.correlation > 0.6
        assert report.agreement.pairs == 6
        assert "neighbouring training images agree to 0." in report.summary()[-1]


def test_axes_of_other_layouts(tmp_path):
    params = radiance.Params(num_train=24, num_val=1, num_test=1, size=40, num_objects=4)
    radiance.write(tmp_path / "blender", params)
    config = BlenderDataParserConfig(data=tmp_path / "blender")
    assert not look(config).findings.warnings
    path = tmp_path / "blender/transforms_train.json"
    content = json.loads(path.read_text())
    for frame in content["frames"]:
        frame["transform_matrix"] = (np.array(frame["transform_matrix"]) * [1, -1, -1, 1]).tolist()
    path.write_text(json.dumps(content))
    assert "if the camera's axes were right, down, forwards (OpenCV)" in look(config).findings.warnings[0]


def test_pictures_without_texture_say_nothing(copy):
    for path in images(copy, "images_4"):
        Image.new("RGB", (24, 16), "grey").save(path)
    report = look(LLFFDataParserConfig(data=copy, downscale_factor=4))
    assert report.agreement is None
    assert not report.findings.warnings
