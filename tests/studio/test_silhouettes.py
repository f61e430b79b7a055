"""Outlines of an object that fit together, or do not."""

import json
import re

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from PIL import Image, ImageFilter

from perception.datasets.synthetic import glossy, radiance
from perception.studio.parsers import read_by
from perception.studio.scene_checks import PLAIN_USE, check_scene
from perception.studio.tensoir_dataparser import TensoIRDataParserConfig

pytestmark = pytest.mark.xdist_group("nerfstudio")


@pytest.fixture
def scene(tmp_path):
    params = radiance.Params(num_train=20, num_val=1, num_test=1, size=64, num_objects=4)
    radiance.write(tmp_path / "scene", params)
    return tmp_path / "scene"


def look(folder):
    config = BlenderDataParserConfig(data=folder)
    return check_scene(read_by(config).setup(), ("train",), PLAIN_USE, background=torch.ones(3))


def change_alpha(folder, views, image_filter) -> None:
    for view in views:
        path = folder / f"train/r_{view:03d}.png"
        image = Image.open(path)
        image.putalpha(image.getchannel("A").filter(image_filter))
        image.save(path)


def test_exact_outlines_fit(scene):
    report = look(scene)
    assert not report.findings.warnings
    assert report.outlines.views == 20
    assert report.outlines.confirmed > 0.97
    assert report.summary()[-1].endswith("of the object's outlines in 20 training images fit together")


def test_wide_outlines_are_named(scene):
    change_alpha(scene, (3, 11), ImageFilter.MaxFilter(5))
    (warning,) = look(scene).findings.warnings
    assert re.match(r"r_0(03|11)\.png \(\d+%\), r_0(03|11)\.png \(\d+%\) of 20 images looked at show", warning)
    assert "wider than the other views leave it" in warning


def test_masks_a_few_pixels_too_wide_are_named_in_folders_of_one_image_each(tmp_path):
    """Images of TensoIR's layout are all called rgba.png."""
    glossy.write(tmp_path / "scene", glossy.Params(num_train=20, num_val=1, num_test=1, size=64))
    config = TensoIRDataParserConfig(data=tmp_path / "scene")

    def warnings():
        report = check_scene(read_by(config).setup(), ("train",), PLAIN_USE, background=torch.ones(3))
        return [text for text in report.findings.warnings if "wider" in text]

    assert not warnings()
    for view in (2, 7, 12, 17):
        path = tmp_path / f"scene/train_{view:03d}/rgba.png"
        image = Image.open(path)
        image.putalpha(image.getchannel("A").filter(ImageFilter.MaxFilter(7)))
        image.save(path)
    (warning,) = warnings()
    named = re.findall(r"train_(\d+)/rgba\.png", warning)
    assert sorted(named) == ["002", "007", "012", "017"]


def test_narrow_outlines_are_named(scene):
    change_alpha(scene, (5,), ImageFilter.MinFilter(9))
    (warning,) = look(scene).findings.warnings
    assert "the outlines of the object do not fit together" in warning
    assert "or the object is too narrow in r_005.png" in warning


def test_poses_of_other_views_are_noticed(scene):
    """Each is rigid and looks at the object, but belongs to another image."""
    path = scene / "transforms_train.json"
    content = json.loads(path.read_text())
    names = [frame["file_path"] for frame in content["frames"]]
    for frame, name in zip(content["frames"], [*names[7:], *names[:7]]):
        frame["file_path"] = name
    path.write_text(json.dumps(content))
    assert any("outlines of the object do not fit together" in warning for warning in look(scene).findings.warnings)


def test_images_without_alpha_have_no_outlines(scene):
    for path in (scene / "train").iterdir():
        pixels = np.array(Image.open(path))
        pixels[..., 3] = 255
        Image.fromarray(pixels).save(path)
    assert look(scene).outlines is None
