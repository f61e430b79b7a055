"""The methods as nerfstudio runs them: stages, resume, evaluation, and every map."""

import json

import numpy as np
import pytest
import torch
import trimesh
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.scripts.render import DatasetRender
from nerfstudio.utils.eval_utils import eval_setup
from PIL import Image

from perception.datasets.hdr_images import read_latlong, write_hdr
from perception.datasets.synthetic import glossy, radiance
from perception.engine.errors import UserError
from perception.radiance.cubemap import cube_to_latlong
from perception.radiance.split_sum import linear_to_srgb
from perception.studio.errors import SceneError
from projects.rise_sdf import cli
from projects.rise_sdf.config import neus_blender, rise_sdf
from tests.projects.rise_sdf.runs import STEPS, short_config, train

pytestmark = [pytest.mark.xdist_group("nerfstudio"), pytest.mark.slow]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "glossy"
    glossy.write(out, glossy.Params(num_train=5, num_val=1, num_test=2, size=24))
    return out


@pytest.fixture(scope="module")
def finished(scene, tmp_path_factory):
    return train(short_config(scene, tmp_path_factory.mktemp("runs")))


@pytest.fixture
def registered(finished, monkeypatch):
    monkeypatch.setitem(all_methods, finished.config.method_name, finished.config)
    return finished.base_dir / "config.yml"


def test_recipes_have_the_published_numbers():
    model, rates = rise_sdf.config.pipeline.model, rise_sdf.config.optimizers
    assert [stage.end for stage in model.schedule().stages] == [10_000, 80_000]
    assert (model.num_rays, model.max_rays, model.target_samples) == (256, 4096, 256 * 1024)
    assert {name: group["optimizer"].lr for name, group in rates.items()} == {
        "geometry": 0.005,
        "texture": 0.005,
        "variance": 0.001,
        "emitter": 0.01,
    }
    schedule = rates["geometry"]["scheduler"].setup().get_scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    factor = schedule(optimizer, 1.0).lr_lambdas[0]
    assert [factor(0), factor(500), factor(80_000)] == pytest.approx([0.01, 1.0, 0.1])
    assert factor(501) == pytest.approx(0.1 ** (1 / 79_500))
    assert neus_blender.config.pipeline.model.schedule().total_steps == 30_000
    assert neus_blender.config.optimizers["geometry"]["optimizer"].betas == (0.9, 0.99)


def test_a_run_reaches_its_second_stage(finished):
    model = finished.pipeline.model
    assert finished.step == STEPS - 1
    assert int(model.stage) == 1
    assert 48 <= int(model.num_rays) <= 96
    emitter = finished.optimizers.optimizers["emitter"].state
    assert [int(state["step"]) for state in emitter.values()] == [STEPS - 8]  # it had no gradient before


def test_a_killed_run_ends_with_the_same_bytes(finished, scene, tmp_path):
    config = short_config(scene, tmp_path)
    config.max_num_iterations = 10
    first = train(config)
    config = short_config(scene, tmp_path)
    config.timestamp, config.load_dir = "later", first.checkpoint_dir
    resumed = train(config)
    own, expected = resumed.pipeline.model.state_dict(), finished.pipeline.model.state_dict()
    assert own.keys() == expected.keys()
    assert [name for name in own if not torch.equal(own[name], expected[name])] == []


def test_ns_eval_measures_materials_and_relit_views(finished, registered, tmp_path):
    ComputePSNR(load_config=registered, output_path=tmp_path / "metrics.json").main()
    found = json.loads((tmp_path / "metrics.json").read_text())["results"]
    wanted = {"psnr", "ssim", "psnr_phys", "ssim_phys", "albedo_psnr", "roughness_psnr", "normal_mae"}
    wanted |= {"relit_sunset_psnr", "relit_studio_psnr", "relit_studio_psnr_unlit", "albedo_scale_g"}
    assert wanted <= found.keys()
    assert all(np.isfinite(found[name]) for name in wanted)
    assert 0 < found["normal_mae"] < 120


def test_scores_as_the_released_script_takes_them(finished):
    model = finished.pipeline.model.eval()
    truth, shown = torch.zeros(16, 16, 3), torch.zeros(16, 16, 3)
    truth[:8], shown[:8] = 0.6, 0.3  # whole pixels of the object, and as many at its outline
    truth[8:12], shown[8:12] = 0.2, 0.4
    alpha = torch.zeros(16, 16, 1)
    alpha[:8], alpha[8:12] = 1.0, 0.25
    outputs = {"rgb": shown, "accumulation": alpha, "depth": alpha, "normal": shown, "albedo": shown}
    outputs |= {"rgb_phys": shown, "relit_studio": shown}
    batch = {"image": truth, "alpha": alpha, "true_albedo": truth, "true_relit_studio": truth}
    found = []
    for released in (False, True):
        model.config.released_scores = released
        found.append(model.get_image_metrics_and_images(outputs, batch)[0])
    model.config.released_scores = False
    finished.pipeline.train()
    assert [value["albedo_scale_r"] for value in found] == pytest.approx([2.0, 2.0])
    # The outline is scaled as well where it counts: 0.8 instead of 0.4, where 0.2 is true.
    errors = [10 ** (-value["albedo_psnr"] / 10) for value in found]
    assert errors == pytest.approx([0.04 / 4, 0.36 / 4], rel=1e-3)
    # White of which three quarters are seen is brighter in sRGB.
    outline = 0.2 - 0.75 + float(linear_to_srgb(torch.tensor(0.75)))
    errors = [10 ** (-value["relit_studio_psnr_unscaled"] / 10) for value in found]
    assert errors == pytest.approx([(0.18 + 0.04) / 4, (0.18 + (outline - 0.4) ** 2) / 4], rel=1e-3)
    assert found[1]["psnr"] == pytest.approx(found[1]["relit_studio_psnr_unscaled"])


@torch.no_grad()
def test_ns_render_writes_every_map(finished, registered, tmp_path):
    DatasetRender(load_config=registered, output_path=tmp_path, split="test", image_format="png").main()
    names = {path.name for path in (tmp_path / "test").iterdir()}
    wanted = {"rgb", "rgb_phys", "specular_rgb", "albedo", "metallic", "roughness", "normal", "depth", "accumulation"}
    assert wanted | {"relit_courtyard", "relit_sunset", "relit_studio", "specular_light"} <= names


def test_a_run_is_loaded_as_it_was(finished, registered):
    _, pipeline, _, _ = eval_setup(registered, test_mode="test")
    camera = pipeline.datamanager.eval_dataset.cameras[0:1]
    first = pipeline.model.get_outputs_for_camera(camera)
    second = finished.pipeline.eval().model.get_outputs_for_camera(camera)
    finished.pipeline.train()
    for name in ("rgb", "rgb_phys", "normal"):
        assert torch.equal(first[name], second[name]), name


def test_neus_trains_on_blender_scenes(tmp_path):
    radiance.write(tmp_path / "scene", radiance.Params(num_train=4, num_val=1, num_test=1, size=20, num_objects=1))
    trainer = train(short_config(tmp_path / "scene", tmp_path / "out", neus=True))
    assert trainer.step == STEPS - 1
    model = trainer.pipeline.eval().model
    outputs = model.get_outputs_for_camera(trainer.pipeline.datamanager.eval_dataset.cameras[0:1])
    assert outputs["rgb"].shape == (20, 20, 3)
    # Colours of the field and of the images are blended as they are, so that a share of the background is just that.
    behind = torch.tensor([0.1, 0.5, 0.9])
    batch = {"image": torch.full((1, 3), 0.25), "alpha": torch.tensor([0.75])}
    target = model.composite({"background": behind}, batch)
    wanted = model.target(batch) - 0.25 * model.background + 0.25 * linear_to_srgb(behind)
    torch.testing.assert_close(target, wanted)


def test_wrong_settings_are_said_before_training(scene, tmp_path):
    config = short_config(scene, tmp_path)
    config.pipeline.model.loss.mask = (0.1, 0.2)
    with pytest.raises(SceneError, match=r"--pipeline.model.loss.mask: a weight is one number"):
        train(config)
    config = short_config(scene, tmp_path)
    config.pipeline.model.light.resolution = 32
    with pytest.raises(SceneError, match=r"--pipeline.model.light.resolution: .* at least 64 texels, not 32"):
        train(config)


def test_command_relights(registered, scene, tmp_path, capsys):
    command = ["relight", str(registered.parent), "--light", str(scene / "lights/studio.hdr")]
    cli.run([*command, "--out", str(tmp_path / "a")])
    assert "2 test views" in capsys.readouterr().out
    cli.run([*command, "--rotation", "180", "--out", str(tmp_path / "b")])
    one, two = (np.asarray(Image.open(tmp_path / name / "0001.png")).astype(float) for name in "ab")
    assert one.shape == (24, 24, 3)
    assert np.abs(one - two).max() > 3


def test_command_writes_the_light(finished, registered, tmp_path):
    cli.run(["light", str(registered), "--out", str(tmp_path / "light.exr"), "--height", "64"])
    image = torch.from_numpy(read_latlong(tmp_path / "light.exr"))
    base = finished.pipeline.model.field.light.base.detach()
    torch.testing.assert_close(image, cube_to_latlong(base.clamp(min=0), 64, 128))
    assert json.loads((tmp_path / "light.json").read_text())["middle_column"] == "+x"


def test_command_writes_a_mesh(registered, tmp_path):
    for name in ("mesh.glb", "mesh.ply"):
        cli.run(["mesh", str(registered), "--out", str(tmp_path / name), "--resolution", "40"])
        mesh = trimesh.load(tmp_path / name, force="mesh")
        assert mesh.volume > 0
        assert 0.5 < mesh.bounding_sphere.primitive.radius < 1.6
        assert len(mesh.visual.vertex_colors) == len(mesh.vertices)
        frame = json.loads((tmp_path / "mesh.json").read_text())
        assert np.allclose(frame["from_the_field's_frame"], np.eye(4))


def test_commands_refuse_in_one_sentence(registered, tmp_path):
    write_hdr(tmp_path / "square.hdr", np.ones((8, 8, 3)))
    (tmp_path / "broken.hdr").write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 8 +X 16\n\x01")
    for light, sentence in (
        ("square.hdr", "twice as wide as high"),
        ("broken.hdr", "damaged"),
        ("none.exr", "there is no file"),
    ):
        with pytest.raises(UserError, match=sentence):
            cli.run(["relight", str(registered), "--light", str(tmp_path / light)])
    with pytest.raises(UserError, match=r"must end in \.glb or \.ply"):
        cli.run(["mesh", str(registered), "--out", "mesh.obj"])
    with pytest.raises(UserError, match=r"no config\.yml"):
        cli.run(["light", str(tmp_path), "--out", "a.hdr"])
