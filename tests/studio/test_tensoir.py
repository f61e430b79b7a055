"""Scenes in TensoIR's layout: cameras, true maps, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from perception.datasets.synthetic import glossy
from perception.studio.errors import SceneError
from perception.studio.material_data import MaterialDataManagerConfig, read_maps
from perception.studio.parsers import read_by
from perception.studio.tensoir_dataparser import TensoIRDataParserConfig

pytestmark = pytest.mark.xdist_group("nerfstudio")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "glossy"
    glossy.write(out, glossy.Params(num_train=3, num_val=1, num_test=2, size=20))
    return out


@pytest.fixture
def copied(scene, tmp_path):
    return shutil.copytree(scene, tmp_path / "scene")


def outputs_of(folder, split="train", **options):
    return read_by(TensoIRDataParserConfig(data=folder, **options)).setup().get_dataparser_outputs(split)


def test_cameras_and_lights(scene):
    outputs = outputs_of(scene)
    meta = json.loads((scene / "train_001/metadata.json").read_text())
    pose = np.array([float(value) for value in meta["cam_transform_mat"].split(",")]).reshape(4, 4)
    np.testing.assert_allclose(outputs.cameras.camera_to_worlds[1].numpy(), pose[:3], atol=1e-6)
    assert float(outputs.cameras.fx[0]) == pytest.approx(0.5 * 20 / np.tan(0.5 * meta["cam_angle_x"]), rel=1e-6)
    assert outputs.metadata["lights"].keys() == {"courtyard", "sunset", "studio"}
    assert outputs.scene_box.aabb.tolist() == [[-1.5] * 3, [1.5] * 3]


def test_batches_have_the_coverage_of_their_pixels(scene):
    config = MaterialDataManagerConfig(dataparser=TensoIRDataParserConfig(), data=scene, train_num_rays_per_batch=200)
    manager = config.setup(device="cpu", test_mode="val", world_size=1, local_rank=0)
    _, batch = manager.next_train(0)
    view, row, column = batch["indices"].unbind(-1)
    rgba = torch.stack([torch.from_numpy(manager.train_dataset.get_numpy_image(i)) for i in range(3)])
    torch.testing.assert_close(batch["alpha"], rgba[view, row, column, 3].float() / 255)
    _, image = next(iter(manager.fixed_indices_eval_dataloader))
    assert {"alpha", "true_albedo", "true_normal", "true_roughness", "true_relit_sunset"} <= image.keys()
    assert image["true_roughness"].shape == (20, 20, 1)


def test_maps_may_be_missing_or_other_files(copied):
    folder = copied / "test_000"
    for name in ("albedo.exr", "normal.exr", "rgba_studio.png"):
        (folder / name).unlink()
    shutil.copy(folder / "rgba.png", folder / "albedo.png")
    meta = {"albedo_format": "any", "lights": {"studio": "", "sunset": ""}}
    maps = read_maps(folder, meta, (20, 20))
    assert maps.keys() == {"true_albedo", "true_roughness", "true_metallic", "true_relit_sunset"}
    assert maps["true_albedo"].shape == (20, 20, 3)
    (folder / "roughness.exr").write_bytes(b"no picture")
    with pytest.raises(SceneError, match=r"roughness.exr cannot be read as a .exr picture"):
        read_maps(folder, meta, (20, 20))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: (f / "metadata.json").unlink(), "train_001 has no metadata.json"),
        (lambda f: (f / "metadata.json").write_text("{}"), "lacks cam_angle_x and cam_transform_mat"),
        (
            lambda f: (f / "metadata.json").write_text('{"cam_angle_x": 0.7, "cam_transform_mat": "1,2,3"}'),
            "cam_transform_mat must be 16 numbers",
        ),
        (lambda f: (f / "rgba.png").unlink(), "there is no image"),
    ],
)
def test_what_is_refused(copied, change, sentence):
    change(copied / "train_001")
    with pytest.raises(SceneError, match=sentence):
        outputs_of(copied)


def test_a_scene_without_views_or_lights(tmp_path, copied):
    with pytest.raises(SceneError, match="no folder"):
        outputs_of(copied, lights=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SceneError, match="has no folders train_000"):
        outputs_of(tmp_path / "empty")


def test_pictures_of_maps_hold_linear_albedo_and_shifted_normals(copied):
    folder = copied / "test_000"
    for name in ("albedo.exr", "normal.exr"):
        (folder / name).unlink()
    pixels = np.full((20, 20, 4), 255, np.uint8)
    pixels[..., :3] = (51, 102, 204)
    pixels[0] = (102, 102, 102, 0)
    Image.fromarray(pixels).save(folder / "albedo.png")
    Image.fromarray(pixels).save(folder / "normal.png")
    Image.fromarray(pixels[..., :3].copy()).save(folder / "rgba_studio.png")
    maps = read_maps(folder, {"albedo_format": "any", "lights": {"studio": ""}}, (20, 20))
    close = torch.testing.assert_close
    close(maps["true_albedo"][1, 0], torch.tensor([0.2, 0.4, 0.8]))
    close(maps["true_albedo"][0, 0], torch.zeros(3))
    close(maps["true_normal"][1, 0], torch.tensor([-0.6, -0.2, 0.6]))
    close(maps["true_relit_studio"][1, 0], torch.tensor([0.2, 0.4, 0.8]))
