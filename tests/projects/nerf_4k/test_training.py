"""The methods as nerfstudio runs them: stages, losses, exact resume, starts from files, evaluation."""

import json

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.utils.eval_utils import eval_setup

from perception.datasets.synthetic import radiance, shelves
from perception.engine.checkpoint import load_checkpoint_file
from perception.studio.errors import SceneError
from perception.studio.evaluation import measure_split
from projects.nerf_4k.config import nerf_4k, nerf_4k_1x, nerf_4k_bounded
from projects.nerf_4k.converter import authors, read_parts
from projects.nerf_4k.losses import VggFeatures
from projects.nerf_4k.model import smaller_camera
from tests.projects.nerf_4k.runs import ENCODER, JOINT, make_trainer, small_bounded_config, small_config, train
from tests.projects.nerf_4k.test_converter import generator

pytestmark = pytest.mark.xdist_group("nerfstudio")
SIZE = (18, 24)  # of the small images


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Six small views and their large ones."""
    out = tmp_path_factory.mktemp("data") / "shelves"
    shelves.write(out, shelves.Params(views=6, height=SIZE[0], width=SIZE[1], scale=4))
    return out


@pytest.fixture(scope="module")
def surrounded(tmp_path_factory):
    """A bounded scene in Blender layout."""
    out = tmp_path_factory.mktemp("data") / "scene"
    radiance.write(out, radiance.Params(num_train=8, num_val=2, num_test=2, size=32, num_objects=2))
    return out


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """Weights of VGG19's shape."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "vgg19.pth"
    torch.save(VggFeatures().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def finished(scene, tmp_path_factory):
    """A run from beginning to end."""
    config = small_config(scene, tmp_path_factory.mktemp("runs"))
    config.pipeline.model.report_split = "test"
    return train(config)


def state_of(trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.pipeline.model.state_dict().items()}


def moments_of(trainer) -> dict[str, torch.Tensor]:
    """All that optimisers and schedules know."""
    found = {}
    for group, optimizer in trainer.optimizers.optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            found |= {f"{group}.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        found[f"{group}.lr"] = torch.tensor(optimizer.param_groups[0]["lr"])
        found[f"{group}.epoch"] = torch.tensor(trainer.optimizers.schedulers[group].last_epoch)
    return found


def assert_same(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_methods_and_the_papers_numbers():
    assert {"nerf-4k", "nerf-4k-1x", "nerf-4k-bounded", "nerf-4k-tiny"} <= all_methods.keys()
    model = nerf_4k.config.pipeline.model
    assert [(s.name, s.start, s.end) for s in model.schedule().stages] == [
        ("encoder", 0, 30_000),
        ("joint", 30_000, 300_000),
    ]
    bounded = nerf_4k_bounded.config.pipeline.model.schedule()
    assert [(s.name, s.start) for s in bounded.stages] == [("coarse", 0), ("fine", 5000), ("joint", 25_000)]
    assert bounded.total_steps == 305_000
    assert (model.scale, nerf_4k_1x.config.pipeline.model.scale) == (4, 1)
    rates = {name: group["optimizer"].lr for name, group in nerf_4k.config.optimizers.items()}
    assert rates == {"density": 0.1, "k0": 0.1, "rgbnet": 1e-3, "decoder": 2e-4, "discriminator": 2e-4}
    weights = {name: value for name, value in vars(model.joint).items() if name.startswith("weight_")}
    assert weights == {
        "weight_small": 1.0,
        "weight_large": 1.0,
        "weight_perceptual": 0.5,
        "weight_style": 0.2,
        "weight_gan": 0.05,
        "weight_entropy_last": 0.001,
        "weight_rgbper": 0.01,
        "weight_distortion": 0.01,
    }


def test_a_run_leaves_what_it_should(finished):
    model = finished.pipeline.model
    assert model.stages.present.name == "joint"
    assert model.field.world_size[2] == 8
    assert 12 * 10 * 8 / 1.4 < int(model.num_voxels) <= 12 * 10 * 8
    quality = json.loads((finished.base_dir / "quality.json").read_text())
    assert quality.keys() == {"split", "psnr", "ssim", "psnr_bicubic", "ssim_bicubic"}
    for name, parameters in model.get_param_groups().items():
        optimizer = finished.optimizers.optimizers[name]
        assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in parameters]
        assert len(optimizer.state) == len(parameters)
    growth = 0.1 ** (1 / 20_000)
    rate = finished.optimizers.optimizers["k0"].param_groups[0]["lr"]
    assert rate == pytest.approx(0.1 * growth ** (ENCODER - 8 + 1) * 0.1 ** (JOINT / 2000), rel=1e-6)
    rate = finished.optimizers.optimizers["decoder"].param_groups[0]["lr"]
    assert rate == pytest.approx(1e-3 * 0.1 ** (JOINT / 2000), rel=1e-6)


@pytest.mark.parametrize("stop", [6, ENCODER, ENCODER + 4])
def test_a_resumed_run_equals_the_uninterrupted_one(finished, scene, tmp_path, stop):
    """Stopped in the first stage, right before the second, and in it: fields, networks, power iterations, moments."""
    config = small_config(scene, tmp_path)
    config.max_num_iterations = stop
    first = train(config)
    config = small_config(scene, tmp_path)
    config.timestamp, config.load_dir = "later", first.checkpoint_dir
    resumed = train(config)
    assert resumed.step == ENCODER + JOINT - 1
    assert_same(state_of(resumed), state_of(finished))
    assert_same(moments_of(resumed), moments_of(finished))
    assert any(name.endswith("weight_u") for name in state_of(resumed))


def test_evaluation_of_a_checkpoint(finished, scene):
    _, pipeline, _, step = eval_setup(finished.base_dir / "config.yml")
    assert step == ENCODER + JOINT - 1
    assert_same(pipeline.model.state_dict(), state_of(finished))
    metrics = measure_split(pipeline, "test")
    quality = json.loads((finished.base_dir / "quality.json").read_text())
    assert all(metrics[name] == pytest.approx(quality[name], abs=1e-5) for name in metrics)
    camera, batch = next(iter(pipeline.datamanager.fixed_indices_eval_dataloader))
    assert tuple(batch["image"].shape) == (4 * SIZE[0], 4 * SIZE[1], 3)
    outputs = pipeline.model.get_outputs_for_camera(camera)
    assert all(value.shape[:2] == (4 * SIZE[0], 4 * SIZE[1]) for value in outputs.values())
    _, images = pipeline.model.get_image_metrics_and_images(outputs, batch)
    assert tuple(images["img"].shape) == (4 * SIZE[0], 3 * 4 * SIZE[1], 3)


def test_any_camera_is_rendered_at_its_size(finished):
    """Tiles as large as a picture and smaller ones agree; sides need not be multiples of the scale."""
    model = finished.pipeline.model.eval()
    camera = Cameras(torch.eye(4)[None, :3], 40.0, 40.0, 24.5, 17.0, width=49, height=34)
    whole = model.get_outputs_for_camera(camera)
    assert {name: tuple(value.shape) for name, value in whole.items()} == {
        "rgb": (34, 49, 3),
        "rgb_bicubic": (34, 49, 3),
        "accumulation": (34, 49, 1),
        "depth": (34, 49, 1),
    }
    model.config.tile_size, model.config.tile_pad = 5, 19
    try:
        tiled = model.get_outputs_for_camera(camera)
    finally:
        model.config.tile_size, model.config.tile_pad = 192, 16
    torch.testing.assert_close(tiled["rgb"], whole["rgb"], atol=1e-5, rtol=0)
    # It sees the scene between its near plane and its far end.
    assert float(whole["depth"].min()) > 0.9
    behind = Cameras(torch.diag(torch.tensor([-1.0, 1, -1, 1]))[None, :3], 40.0, 40.0, 24.5, 17.0, width=49, height=34)
    assert not model.get_outputs_for_camera(behind)["accumulation"].any()


def test_a_training_view_is_rendered_along_the_rays_it_was_trained_on(finished):
    manager, model = finished.pipeline.datamanager, finished.pipeline.model.eval()
    camera = manager.train_dataset.cameras[2:3]
    _, rays_o, rays_d, _ = next(rays for rays in manager.training_views() if rays[0] == 2)
    small = smaller_camera(camera, 4).generate_rays(camera_indices=0, keep_shape=True).flatten()
    torch.testing.assert_close(small.origins, rays_o)
    torch.testing.assert_close(small.directions * small.metadata["directions_norm"], rays_d)
    shown = model.get_outputs_for_camera(camera)["accumulation"][::4, ::4].flatten()
    with torch.no_grad():
        expected = model.get_outputs(small)["accumulation"].flatten()
    torch.testing.assert_close(shown, expected)


def test_the_picture_trains_the_field_through_its_colours_only(finished, scene, tmp_path):
    config = small_config(scene, tmp_path)
    trainer = make_trainer(config)
    model = trainer.pipeline.model.train()
    model.load_state_dict(state_of(finished))
    rays, _ = trainer.pipeline.datamanager.next_train(0)
    rendering = model.render(rays[:100])
    small = model.small_picture(rendering).view(1, 10, 10, 3).movedim(3, 1)
    depth = model.small_depth(rendering).view(1, 1, 10, 10)
    assert not depth.requires_grad
    model.enlarge(small, depth).abs().mean().backward()
    for grid in (model.field.k0.grid, model.field.density.grid):
        assert float(grid.grad.abs().max()) > 0


def test_losses_without_a_discriminator(scene, tmp_path):
    config = small_config(scene, tmp_path)
    config.pipeline.model.joint.weight_gan = 0.0
    seen = losses_of(config)
    assert seen["encoder"] == {"rgb_loss", "entropy_loss", "rgbper_loss", "distortion_loss"}
    assert seen["joint"] == {"small_loss", "entropy_loss", "rgbper_loss", "distortion_loss", "large_loss"}


def test_all_losses_and_weights_that_vanish(scene, tmp_path, vgg_file, monkeypatch):
    config = small_config(scene, tmp_path)
    joint = config.pipeline.model.joint
    joint.weight_perceptual, joint.weight_style, joint.vgg_weights, joint.iters = 0.5, 0.2, vgg_file, 2
    config.max_num_iterations = ENCODER + 1
    trainer = train(config)
    later = small_config(scene, tmp_path)
    later.pipeline.model.joint = joint
    later.timestamp, later.load_dir = "later", trainer.checkpoint_dir
    joint.vgg_weights = None
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "nothing"))
    with pytest.raises(SceneError, match="whose weights are not at"):
        make_trainer(later)
    joint.vgg_weights = vgg_file
    assert losses_of(later)["joint"] >= {"gan_loss", "perceptual_loss", "style_loss", "discriminator_loss"}


def losses_of(config) -> dict[str, set[str]]:
    """Names of the losses that each stage of a run has."""
    trainer = make_trainer(config)
    seen, iteration = {}, trainer.train_iteration

    def watched(step):
        result = iteration(step)
        seen.setdefault(trainer.pipeline.model.stages.present.name, set()).update(result[1])
        return result

    trainer.train_iteration = watched
    trainer.train()
    return seen


def test_missing_weights_are_said_before_training(scene, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "nothing"))
    config = small_config(scene, tmp_path)
    config.pipeline.model.joint.weight_style = 0.2
    trainer = make_trainer(config)
    assert trainer.pipeline.model.vgg is None
    said = one_line(capsys.readouterr().out)
    assert said.count("perceptual and style losses are left out") == 1
    assert "vgg19-dcbb9e9d.pth" in said
    config.pipeline.model.joint.vgg_weights = tmp_path / "vgg.pth"
    with pytest.raises(SceneError, match="there is no file"):
        make_trainer(config)
    config.pipeline.model.joint.vgg_weights = None
    for option in ("encoder_weights", "decoder_weights", "generator_weights"):
        setattr(config.pipeline.model, option, tmp_path / "weights.pth")
        with pytest.raises(SceneError, match="does not exist"):
            make_trainer(config)
        setattr(config.pipeline.model, option, None)


def test_start_from_the_networks_of_files(finished, scene, tmp_path):
    """What a run has learnt, written for the authors' code, starts another one: the joint stage alone."""
    checkpoint = load_checkpoint_file(next(finished.checkpoint_dir.glob("*.ckpt")))
    parts = read_parts(checkpoint)
    torch.save(authors(parts), tmp_path / "fine_last.tar")
    config = small_config(scene, tmp_path)
    model = config.pipeline.model
    model.encoder_weights = model.decoder_weights = tmp_path / "fine_last.tar"
    model.joint.iters = 1
    for group in config.optimizers.values():
        group["optimizer"].lr = 0.0
    started = train(config)
    own, theirs = started.pipeline.model.state_dict(), finished.pipeline.model.state_dict()
    names = [name for name in theirs if name.startswith(("field.", "decoder."))]
    assert_same({name: own[name] for name in names}, {name: theirs[name] for name in names})
    first = theirs["ndc"], theirs["far"]
    assert all(torch.equal(a, b) for a, b in zip(first, (own["ndc"], own["far"])))
    model.encoder.mpi_depth = 10
    with pytest.raises(SceneError, match="mpi_depth 8 there, 10 here"):
        make_trainer(config)
    model.encoder.mpi_depth, model.decoder.num_feat = 8, 16
    with pytest.raises(SceneError, match="num_feat 8 there, 16 here"):
        make_trainer(config)


def test_start_from_real_esrnet(scene, tmp_path, capsys):
    weights = generator(8, 4, blocks=3)
    torch.save({"params_ema": weights}, tmp_path / "RealESRNet_x4plus.pth")
    config = small_config(scene, tmp_path)
    config.pipeline.model.generator_weights = tmp_path / "RealESRNet_x4plus.pth"
    config.pipeline.model.encoder.iters, config.pipeline.model.encoder.pg_scale = 1, ()
    config.pipeline.model.joint.iters = 1
    config.optimizers["decoder"]["optimizer"].lr = 0.0
    trainer = train(config)
    assert "42 weights" in one_line(capsys.readouterr().out)
    own = trainer.pipeline.model.decoder.state_dict()
    assert torch.equal(own["body.0.rdb2.conv3.weight"], weights["body.0.rdb2.conv3.weight"])


@pytest.mark.parametrize("scale", [1, 2])
def test_bounded_scene(surrounded, tmp_path, scale):
    """Small images are averages of the ones that there are; a run that was stopped in the joint stage goes on."""
    whole = train(small_bounded_config(surrounded, tmp_path / "whole", scale))
    manager = whole.pipeline.datamanager
    assert manager.pixels.sizes[0] == (32 // scale, 32 // scale)
    tile = manager.sampler.tile(0)
    small = manager.pixels.tile_colours(tile, manager.background)
    large = manager.pixels.large_tile(tile).view(small.shape[0], scale, small.shape[1], scale, 3)
    torch.testing.assert_close(large.mean((1, 3)), small, atol=0.003, rtol=0)
    # Corner tiles are smaller than a patch must be.
    assert 0 < len(manager.sampler.tiles) < 8 * (-(-32 // scale // 10)) ** 2
    assert min(place.tile.height * place.tile.width for place in manager.sampler.tiles) > 40
    config = small_bounded_config(surrounded, tmp_path / "part", scale)
    config.max_num_iterations = 30 + 12 + 4
    first = train(config)
    config = small_bounded_config(surrounded, tmp_path / "part", scale)
    config.timestamp, config.load_dir = "later", first.checkpoint_dir
    assert_same(state_of(train(config)), state_of(whole))
    metrics = measure_split(whole.pipeline, "test")
    assert metrics.keys() == {"psnr", "ssim", "psnr_bicubic", "ssim_bicubic"}
    assert (metrics["psnr"] == metrics["psnr_bicubic"]) is False


def test_scenes_that_do_not_fit_are_refused(scene, surrounded, tmp_path):
    from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig

    config = small_config(surrounded, tmp_path)
    config.pipeline.datamanager.dataparser = BlenderDataParserConfig()
    with pytest.raises(SceneError, match="forward-facing"):
        make_trainer(config)
    config = small_config(scene, tmp_path)
    config.pipeline.model.scale = 2
    with pytest.raises(SceneError, match=r"add --pipeline\.datamanager\.scale 2$"):
        make_trainer(config)
    config.pipeline.datamanager.scale = 2
    with pytest.raises(SceneError, match="2 times larger, but the scene pairs them at 4"):
        make_trainer(config)
    wrong = (("scale", 3, "1, 2 or 4"), ("tile_size", 0, "tile-size"), ("tile_pad", -1, "tile-pad"))
    for option, value, words in wrong:
        config = small_config(scene, tmp_path)
        setattr(config.pipeline.model, option, value)
        with pytest.raises(SceneError, match=words):
            make_trainer(config)


def test_half_precision(scene, tmp_path):
    config = small_config(scene, tmp_path)
    config.pipeline.model.precision = "bfloat16"
    trainer = train(config)
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in trainer.pipeline.model.decoder.parameters())
