"""The method as nerfstudio runs it: stages, resume, evaluation, the file, and the command `vqrf`."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from nerfstudio.data.dataparsers.instant_ngp_dataparser import InstantNGPDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.utils.eval_utils import eval_setup
from PIL import Image

from perception.datasets.synthetic import radiance
from perception.engine.errors import UserError
from perception.studio import devices
from perception.studio.errors import SceneError
from perception.studio.evaluation import measure_split
from perception.studio.nsvf_dataparser import NSVFDataParserConfig
from projects.vqrf import cli
from projects.vqrf.compression import field_of, load_into
from projects.vqrf.config import vqrf, vqrf_tiny
from projects.vqrf.file_format import container
from projects.vqrf.packing import load_model
from projects.vqrf.pruning import importance_scores, split_voxels
from projects.vqrf.rendering import render_dataset
from tests.projects.vqrf.runs import make_trainer, printed, small_config, train

pytestmark = pytest.mark.xdist_group("nerfstudio")


def state_of(trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.pipeline.model.state_dict().items()}


def assert_same_state(first, second):
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def test_methods_are_registered():
    assert {"vqrf", "vqrf-tiny"} <= all_methods.keys()


def test_recipe_has_the_papers_numbers():
    model = vqrf.config.pipeline.model
    assert model.schedule().total_steps == 34_999
    assert [stage.start for stage in model.schedule().stages] == [0, 5000, 25_000]
    assert vqrf.config.pipeline.datamanager.train_num_rays_per_batch == 8192
    assert (model.fine.num_voxels, model.coarse.num_voxels) == (160**3, 1_024_000)
    assert (model.compression.codebook_size, model.compression.lr_factor) == (4096, 5)
    rates = {name: group["optimizer"].lr for name, group in vqrf.config.optimizers.items()}
    assert rates == {"density": 0.1, "k0": 0.1, "rgbnet": 1e-3}
    factor = vqrf.config.optimizers["k0"]["scheduler"].setup().get_scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    assert factor(optimizer, 0.1).lr_lambdas[0](16_001) == pytest.approx(0.1585, abs=1e-4)
    assert vqrf_tiny.config.method_name == "vqrf-tiny"


def test_a_run_leaves_what_it_should(finished):
    folder = finished.base_dir
    assert (folder / "config.yml").is_file()
    assert [path.name for path in (folder / "nerfstudio_models").iterdir()] == ["step-000000102.ckpt"]
    assert list(folder.glob("events*"))
    report = json.loads((folder / "compression.json").read_text())
    assert report["bytes"] == (folder / "field.vqrf").stat().st_size == sum(report["parts"].values())
    assert report["before"].keys() == report["after"].keys() == {"psnr", "ssim"}
    voxels = finished.pipeline.model.field.density.grid.numel()
    assert report["raw_bytes"] == 4 * (13 * voxels + (16 * 39 + 16) + (16 * 16 + 16) + (16 * 3 + 3))


def test_optimisers_hold_the_models_parameters(finished):
    groups = finished.pipeline.model.get_param_groups()
    for name, parameters in groups.items():
        optimizer = finished.optimizers.optimizers[name]
        assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in parameters]
        for parameter in parameters:
            assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape


@pytest.mark.parametrize("stop", [30, 60, 64, 70, 80, 95])
def test_a_resumed_run_equals_the_uninterrupted_one(finished, scene, tmp_path, stop):
    """Stopped in every stage, at its first step, and right before and after the grid grows."""
    config = small_config(scene, tmp_path)
    config.max_num_iterations = stop
    first = train(config)
    assert not (first.base_dir / "field.vqrf").exists()
    config = small_config(scene, tmp_path)
    config.timestamp, config.load_dir = "later", first.checkpoint_dir
    resumed = train(config)
    assert resumed.step == 102
    assert_same_state(state_of(resumed), state_of(finished))
    for name, optimizer in resumed.optimizers.optimizers.items():
        expected = finished.optimizers.optimizers[name]
        assert optimizer.param_groups[0]["lr"] == expected.param_groups[0]["lr"]
    assert (resumed.base_dir / "field.vqrf").read_bytes() == (finished.base_dir / "field.vqrf").read_bytes()


def test_learning_rates_of_the_last_stage(finished):
    decay = 0.1 ** (1 / 20_000)
    steps_since_growth = (20 - 8 + 1) + 23
    rate = finished.optimizers.optimizers["k0"].param_groups[0]["lr"]
    assert rate == pytest.approx(0.1 * 0.8 * decay**steps_since_growth, rel=1e-6)


def test_nothing_left_to_train_is_said(finished, scene, tmp_path):
    config = small_config(scene, tmp_path)
    config.load_dir = finished.checkpoint_dir
    with pytest.raises(SceneError, match="nothing left to train"):
        make_trainer(config)
    config.load_dir = tmp_path
    with pytest.raises(SceneError, match="no checkpoint"):
        make_trainer(config)


IMPOSSIBLE = {
    "pipeline.model.compression.importance_keep": (0.9999, "must not exceed importance-prune"),
    "pipeline.model.compression.codebook_size": (1 << 17, "codebook-size must lie between 1 and 65536, not 131072"),
    "pipeline.model.compression.k_expire": (17, r"k-expire \(17\) must lie between 0 and codebook-size 16"),
    "pipeline.model.compression.sync_every": (0, "sync-every must be at least 1, not 0"),
    "pipeline.model.fine.num_voxels": (0, "fine.num-voxels: 0 voxels are too few for a box"),
    "pipeline.model.coarse.iters": (-1, "stage coarse needs at least 1 step, not -1"),
    "pipeline.datamanager.train_num_rays_per_batch": (0, "train-num-rays-per-batch must be at least 1, not 0"),
    "max_num_iterations": (0, "--max-num-iterations must be at least 1, not 0"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_settings_are_said_at_once(name, scene, tmp_path):
    config = small_config(scene, tmp_path)
    value, match = IMPOSSIBLE[name]
    *parts, last = name.split(".")
    setattr(functools.reduce(getattr, parts, config), last, value)
    with pytest.raises(SceneError, match=match):
        make_trainer(config)


def test_as_many_codewords_are_replaced_as_the_settings_say(finished):
    assert finished.pipeline.model.vq.k_expire == finished.config.pipeline.model.compression.k_expire == 2


def test_a_codebook_may_be_small_and_expiry_has_an_effect(scene, tmp_path):
    """8 codewords: none replaced in the steps of their initialisation, or all."""
    learnt = []
    for expire in (0, 8):
        config = small_config(scene, tmp_path / str(expire), coarse=40, fine=10, compression=2)
        config.pipeline.model.compression.codebook_size, config.pipeline.model.compression.k_expire = 8, expire
        model = train(config).pipeline.model
        assert int(model.groups[model.classes.vq].max()) < 8
        learnt.append(model.vq.embed.clone())
    assert learnt[0].shape == learnt[1].shape == (8, 12)
    assert not torch.equal(*learnt)


def test_without_a_gpu_the_cpu_is_taken(scene, tmp_path, monkeypatch, capsys):
    config = small_config(scene, tmp_path)
    config.machine.device_type = vqrf_tiny.config.machine.device_type
    assert config.machine.device_type == "cuda"  # as typed, nerfstudio's default
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    devices._say_cpu.cache_clear()
    trainer = make_trainer(config)
    assert (trainer.device, trainer.pipeline.model.device.type) == ("cpu", "cpu")
    assert "device_type: cpu" in (trainer.base_dir / "config.yml").read_text()
    assert printed(capsys).count("no CUDA device here: working on the CPU") == 1
    config.machine.num_devices, config.machine.device_type = 2, "cuda"
    with pytest.raises(SceneError, match="num-devices 2: there is no CUDA device"):
        config.save_config()


def test_checkpoints_are_whole_or_absent(finished, scene, tmp_path, monkeypatch):
    trainer = make_trainer(small_config(scene, tmp_path))
    trainer.save_checkpoint(1)
    save = torch.save

    def killed(content, path):
        save(content, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.save_checkpoint(2)
    assert [path.name for path in trainer.checkpoint_dir.iterdir()] == ["step-000000001.ckpt"]
    monkeypatch.undo()
    trainer.save_checkpoint(3)
    assert [path.name for path in trainer.checkpoint_dir.iterdir()] == ["step-000000003.ckpt"]
    assert not (trainer.base_dir / ".unfinished-checkpoint").exists()


def test_evaluation_equals_that_in_the_run(finished):
    _, pipeline, path, step = eval_setup(finished.base_dir / "config.yml", test_mode="test")
    assert (path.name, step) == ("step-000000102.ckpt", 102)
    assert_same_state(pipeline.model.state_dict(), finished.pipeline.model.state_dict())
    metrics = pipeline.get_average_eval_image_metrics()
    report = json.loads((finished.base_dir / "compression.json").read_text())
    assert metrics["psnr"] == pytest.approx(report["after"]["psnr"], rel=1e-6)
    assert metrics["ssim"] == pytest.approx(report["after"]["ssim"], rel=1e-6)


def test_rendering_has_all_outputs(finished):
    model = finished.pipeline.model.eval()
    camera, batch = finished.pipeline.datamanager.next_eval_image(0)
    outputs = model.get_outputs_for_camera(camera)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "rgb": (24, 24, 3),
        "accumulation": (24, 24, 1),
        "depth": (24, 24, 1),
    }
    _, pictures = model.get_image_metrics_and_images(outputs, batch)
    assert pictures["img"].shape == (24, 48, 3)


def test_packing_a_finished_run_gives_its_file(finished, tmp_path, capsys):
    cli.run(["pack", str(finished.base_dir), "--out", str(tmp_path / "again.vqrf")])
    assert (tmp_path / "again.vqrf").read_bytes() == (finished.base_dir / "field.vqrf").read_bytes()
    cli.run(["info", str(tmp_path / "again.vqrf")])
    assert "bits per voxel" in capsys.readouterr().out


def test_file_renders_what_the_run_renders(finished, scene, tmp_path, capsys):
    cli.run(["render", str(finished.base_dir / "field.vqrf"), "--data", str(scene), "--out", str(tmp_path)])
    report = json.loads((finished.base_dir / "compression.json").read_text())
    assert f"psnr {report['after']['psnr']:.4f}" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.png"))) == 2
    field = field_of(container.read(finished.base_dir / "field.vqrf"))
    trained = finished.pipeline.model.field
    assert_same_state(field.state_dict(), trained.state_dict())


def test_camera_path_is_rendered(finished, tmp_path):
    pose = radiance.cameras_of(radiance.Params())["test"][0]
    frame = {"camera_to_world": pose.reshape(-1).tolist(), "fov": 40, "aspect": 1.5}
    path = tmp_path / "path.json"
    path.write_text(
        json.dumps({"render_height": 20, "render_width": 30, "camera_type": "perspective", "camera_path": [frame]})
    )
    cli.run(["render", str(finished.base_dir / "field.vqrf"), "--camera-path", str(path), "--out", str(tmp_path)])
    picture = np.asarray(Image.open(tmp_path / "00000.png"))
    assert picture.shape == (20, 30, 3)
    assert picture.std() > 5
    path.write_text("{}")
    with pytest.raises(UserError, match="camera path"):
        cli.run(["render", str(finished.base_dir / "field.vqrf"), "--camera-path", str(path)])


def test_an_early_run_cannot_be_packed(scene, tmp_path):
    config = small_config(scene, tmp_path)
    config.max_num_iterations = 62
    run = train(config)
    assert int(load_model(run.base_dir / "config.yml").stage) == 1
    with pytest.raises(UserError, match="has not reached the compression stage, which begins at step 80"):
        cli.run(["pack", str(run.base_dir)])
    with pytest.raises(UserError, match=r"there is no .*config\.yml"):
        cli.run(["pack", str(tmp_path)])


def test_a_scene_that_nobody_sees_is_refused(scene, tmp_path):
    config = small_config(scene, tmp_path)
    config.pipeline.model.near, config.pipeline.model.far = 5.0, 2.0
    with pytest.raises(SceneError, match="below far"):
        train(config)
    folder = shutil.copytree(scene, tmp_path / "scene")
    content = json.loads((folder / "transforms_train.json").read_text())
    for frame in content["frames"]:  # turned about the vertical axis: they look away from the scene
        pose = np.array(frame["transform_matrix"])
        pose[:3, [0, 2]] *= -1
        frame["transform_matrix"] = pose.tolist()
    (folder / "transforms_train.json").write_text(json.dumps(content))
    with pytest.raises(SceneError, match="unbounded"):
        train(small_config(folder, tmp_path / "away"))


def test_missing_names_in_a_checkpoint_are_said(finished):
    model = load_model(finished.base_dir / "config.yml")  # which is of no use afterwards
    state = dict(model.state_dict())
    state.pop("importance")
    with pytest.raises(SceneError, match="1 names are missing \\(importance\\)"):
        model.load_state_dict(state)


@pytest.mark.slow
def test_learns_and_loses_little(tmp_path):
    """The acceptance of the method's toy: 1/40 of the bytes, nearly the quality."""
    data = tmp_path / "scene"
    radiance.write(data, radiance.Params(num_train=30, num_val=1, num_test=4, size=40, num_objects=3))
    config = small_config(data, tmp_path, coarse=150, fine=400, compression=200)
    config.pipeline.datamanager.train_num_rays_per_batch = 512
    model_config = config.pipeline.model
    model_config.coarse.num_voxels, model_config.fine.num_voxels = 24**3, 40**3
    model_config.fine.pg_scale, model_config.fine.rgbnet_width = (40, 80, 120, 160), 64
    model_config.compression.codebook_size, model_config.compression.codebook_iters = 128, 150
    model_config.compression.codebook_batch = 3000
    config.max_num_iterations = 550
    trainer = train(config)
    pipeline, model = trainer.pipeline, trainer.pipeline.model
    fine = measure_split(pipeline, "test")["psnr"]
    views = pipeline.datamanager.training_views()
    scores = importance_scores(model.field, views, near=model.near, stepsize=0.5)
    classes = split_voxels(scores, 0.999, 0.6)
    density, k0 = model.field.density.table(), model.field.k0.table()
    saved = density.clone(), k0.clone()
    density[~classes.non_prune], k0[~classes.non_prune] = 0, 0
    pruned = measure_split(pipeline, "test")["psnr"]
    density[:], k0[:] = saved
    config.timestamp, config.load_dir, config.max_num_iterations = "later", trainer.checkpoint_dir, 10**6
    finished = make_trainer(config)
    model = finished.pipeline.model
    quantised: dict[str, float] = {}
    last = model.stages.stages[-1]
    start = last.start

    def start_and_measure(run):
        start(run)
        quantised.update(measure_split(finished.pipeline, "test"))

    last.start = start_and_measure
    finished.train()
    report = json.loads((finished.base_dir / "compression.json").read_text())
    assert fine > 24
    assert fine - pruned <= 0.1
    assert fine - quantised["psnr"] <= 0.5
    assert report["after"]["psnr"] >= fine - 0.1
    assert report["ratio"] >= 40
    compressed = container.read(finished.base_dir / "field.vqrf")
    load_into(model.field, compressed)
    assert measure_split(finished.pipeline, "test")["psnr"] == pytest.approx(report["after"]["psnr"], rel=1e-7)


@pytest.mark.parametrize("layout", ["nsvf", "tanks", "nerfstudio", "colmap", "instant-ngp", "colmap-root", "json"])
def test_other_layouts_train_and_render(layout, tmp_path, capsys):
    """The file renders what the run measured: it reads the scene with the run's parser and all its options."""
    data = tmp_path / "scene"
    made = {"instant-ngp": "nerfstudio", "json": "nerfstudio", "colmap-root": "colmap"}.get(layout, layout)
    radiance.write(data, radiance.Params(num_train=8, num_val=1, num_test=1, size=24, num_objects=2, layout=made))
    parsers = {
        "nerfstudio": NerfstudioDataParserConfig(eval_mode="filename", load_3D_points=False),
        "json": NerfstudioDataParserConfig(train_split_fraction=0.8, orientation_method="none", load_3D_points=False),
        "instant-ngp": InstantNGPDataParserConfig(train_split_fraction=0.8),
        "colmap": ColmapDataParserConfig(),
        "colmap-root": ColmapDataParserConfig(colmap_path=Path("sparse/0"), eval_interval=5),
    }
    read = data
    if layout in ("instant-ngp", "json"):
        content = json.loads((data / "transforms.json").read_text())
        for name in ("train_filenames", "val_filenames", "test_filenames"):
            content.pop(name)
        read = data / ("other.json" if layout == "json" else "transforms.json")
        read.write_text(json.dumps(content))
        read = read if layout == "json" else data
    elif layout == "colmap-root":
        shutil.move(data / "colmap" / "sparse", data / "sparse")
    config = small_config(read, tmp_path, coarse=80)
    config.pipeline.datamanager.dataparser = parsers.get(layout, NSVFDataParserConfig())
    run = train(config)
    report = json.loads((run.base_dir / "compression.json").read_text())
    capsys.readouterr()
    for given in {read, data}:
        metrics = render_dataset(run.base_dir / "field.vqrf", given, "test", tmp_path / "out", "cpu")
        assert metrics["psnr"] == pytest.approx(report["after"]["psnr"], abs=1e-3)
        assert metrics["psnr"] > 12
    said = printed(capsys)
    assert "by its files" not in said
    assert ("as the run did" in said) == (layout == "json")
    cli.run(["pack", str(run.base_dir), "--out", str(tmp_path / "again.vqrf")])
    assert (tmp_path / "again.vqrf").read_bytes() == (run.base_dir / "field.vqrf").read_bytes()


def test_a_scene_in_another_layout_is_guessed_and_said(finished, tmp_path, capsys):
    """The same views as the run's, without its parser's files."""
    params = dict(num_train=8, num_val=2, num_test=2, size=24, num_objects=2)
    radiance.write(tmp_path / "scene", radiance.Params(**params, layout="nsvf"))
    metrics = render_dataset(finished.base_dir / "field.vqrf", tmp_path / "scene", "test", tmp_path / "out", "cpu")
    report = json.loads((finished.base_dir / "compression.json").read_text())
    assert metrics["psnr"] == pytest.approx(report["after"]["psnr"], abs=1e-2)
    said = printed(capsys)
    assert "with nsvf-data, by its files: the run used blender-data, which is not here" in said


def test_a_checkpoint_of_an_earlier_version_goes_on(stopped, finished, scene, tmp_path, capsys):
    """It has no record of its run; its stage is compared all the same."""
    (checkpoint,) = stopped.checkpoint_dir.iterdir()
    content = torch.load(checkpoint, weights_only=True)
    assert content.pop("run")["plan"] == [["coarse", 60], ["fine", 20], ["compression", 23]]
    torch.save(content, tmp_path / checkpoint.name)
    config = small_config(scene, tmp_path / "later")
    config.load_dir = tmp_path
    resumed = train(config)
    assert "only its stage is compared" in printed(capsys)
    assert_same_state(state_of(resumed), state_of(finished))
    config = small_config(scene, tmp_path / "other", coarse=250)
    config.load_dir = tmp_path
    with pytest.raises(SceneError, match="is of stage fine, but its step 69 is in stage coarse of this run"):
        make_trainer(config)


def test_the_viewer_can_read_every_property(finished):
    _, pipeline, _, _ = eval_setup(finished.base_dir / "config.yml", test_mode="test")
    for part in (pipeline.model, pipeline.datamanager):
        assert all(hasattr(part, name) for name in dir(type(part)) if not name.startswith("__"))
