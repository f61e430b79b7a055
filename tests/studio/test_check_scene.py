"""The command `check-scene`, and its picture of cameras."""

from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from PIL import Image

from perception.engine.errors import UserError
from perception.studio.check_scene import CheckScene, check
from perception.studio.scene_picture import frustum_segments
from tests.studio.looked_at import cut

pytestmark = pytest.mark.xdist_group("nerfstudio")


def test_command(copy, capsys):
    folder = copy("blender")
    settings = CheckScene(data=folder, out=folder / "pictures/scene.png")
    assert check(settings) == 0
    printed = capsys.readouterr().out
    assert "6 train, 2 val, 3 test views" in printed
    assert "near 2, far 6" in printed
    with Image.open(settings.out) as picture:
        assert min(picture.size) > 500
    cut(folder / "test/r_000.png")
    assert check(settings) == 1
    assert "error: cannot read" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"no method 'x'; known are .*vqrf"):
        check(CheckScene(data=folder, method="x"))
    assert check(CheckScene(data=folder / "train", out=settings.out)) == 1
    assert "error: " + str(folder / "train") + " has no transforms_train.json" in capsys.readouterr().err
    with pytest.raises(UserError, match="no scene at"):
        check(CheckScene(data=folder / "nowhere"))


def test_command_takes_a_data_parser_and_its_options():
    words = [
        "--data",
        "SCENE",
        "--method",
        "vqrf-tiny",
        "--near",
        "1.5",
        "--out",
        "a.png",
        "colmap",
        "--colmap-path",
        "sparse/0",
    ]
    settings = tyro.cli(CheckScene, args=words)
    assert (settings.data, settings.method, settings.near, settings.out.name) == (
        Path("SCENE"),
        "vqrf-tiny",
        1.5,
        "a.png",
    )
    assert settings.dataparser == ColmapDataParserConfig(colmap_path=Path("sparse/0"))
    assert isinstance(tyro.cli(CheckScene, args=words[:2]).dataparser, BlenderDataParserConfig)


def test_frusta_are_drawn_where_cameras_look():
    pose = torch.eye(4)[None, :3].clone()
    pose[0, :, 3] = torch.tensor([1.0, 2, 3])
    cameras = Cameras(pose, torch.tensor([[10.0]]), torch.tensor([[20.0]]), 5.0, 6.0, 20, 30)
    segments = frustum_segments(cameras, 2.0)
    assert segments.shape == (8, 2, 3)
    np.testing.assert_allclose(segments[:4, 0], [[1, 2, 3]] * 4)
    # x: (0 - 5) / 10 and (20 - 5) / 10, y: 6 / 20 and -(30 - 6) / 20, twice as far and from the camera's place
    corners = [[0, 2.6, 1], [4, 2.6, 1], [4, -0.4, 1], [0, -0.4, 1]]
    np.testing.assert_allclose(segments[:4, 1], corners, atol=1e-6)
