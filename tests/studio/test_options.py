"""Options of nerfstudio's that would have no effect are refused, each with a sentence that names it."""

import functools
from copy import deepcopy
from dataclasses import fields
from pathlib import Path

import pytest
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.configs.base_config import MachineConfig
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.data.pixel_samplers import PixelSamplerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.base_model import ModelConfig

from perception.studio.errors import SceneError
from perception.studio.options import IGNORED, check_options
from projects.vqrf.config import vqrf_tiny
from tests.studio.toy import ToyModelConfig, toy_config

pytestmark = pytest.mark.xdist_group("nerfstudio")

OTHERS = {
    "pipeline.datamanager.masks_on_gpu": True,
    "pipeline.datamanager.images_on_gpu": True,
    "pipeline.datamanager.train_num_images_to_sample_from": 5,
    "pipeline.datamanager.train_num_times_to_repeat_images": 5,
    "pipeline.datamanager.eval_num_images_to_sample_from": 5,
    "pipeline.datamanager.eval_num_times_to_repeat_images": 5,
    "pipeline.datamanager.eval_image_indices": (0, 1),
    "pipeline.datamanager.collate_fn": lambda batch: batch,
    "pipeline.datamanager.patch_size": 8,
    "pipeline.datamanager.pixel_sampler": PixelSamplerConfig(ignore_mask=True),
    "pipeline.datamanager.camera_optimizer": CameraOptimizerConfig(mode="SO3xR3"),
    "pipeline.model.enable_collider": True,
    "pipeline.model.collider_params": {"near_plane": 1.0, "far_plane": 6.0},
    "pipeline.model.loss_coefficients": {"rgb_loss_coarse": 2.0},
    "pipeline.model.prompt": "a lego",
    "prompt": "a lego",
    "mixed_precision": True,
    "machine.num_devices": 2,
    "machine.num_machines": 2,
    "machine.machine_rank": 1,
    "machine.dist_url": "tcp://127.0.0.1:1",
}
# Those that a run here goes by; the others of nerfstudio's settings must be refused.
HONOURED = {
    "pipeline.datamanager": {"_target", "data", "dataparser", "camera_res_scale_factor"}
    | {"train_num_rays_per_batch", "eval_num_rays_per_batch"},
    "pipeline.model": {"_target", "eval_num_rays_per_chunk"},
    "machine": {"seed", "device_type"},
    "": {"_target", "output_dir", "method_name", "experiment_name", "project_name", "timestamp", "machine", "logging"}
    | {"viewer", "pipeline", "optimizers", "vis", "data", "relative_model_dir", "load_scheduler", "steps_per_save"}
    | {"steps_per_eval_batch", "steps_per_eval_image", "steps_per_eval_all_images", "max_num_iterations"}
    | {"use_grad_scaler", "save_only_latest_checkpoint", "load_dir", "load_step", "load_config", "load_checkpoint"}
    | {"log_gradients", "gradient_accumulation_steps", "start_paused"},
}


def toy(**settings):
    config = toy_config(Path("scene"), Path("out"))
    for name, value in settings.items():
        put(config, name, value)
    return config


def put(config, name, value):
    *parts, last = name.split(".")
    setattr(functools.reduce(getattr, parts, config), last, value)


@pytest.mark.parametrize("name", IGNORED)
def test_an_option_without_effect_is_refused(name):
    config = toy()
    check_options(config)
    put(config, name, OTHERS[name])
    with pytest.raises(SceneError, match=rf"^--{name.replace('_', '-')}.* has no effect with toy: \w+"):
        check_options(config)


@pytest.mark.parametrize(
    ("group", "kind"),
    [
        ("pipeline.datamanager", VanillaDataManagerConfig),
        ("pipeline.model", ModelConfig),
        ("machine", MachineConfig),
        ("", TrainerConfig),
    ],
)
def test_every_option_of_nerfstudios_is_honoured_or_refused(group, kind):
    refused = {name.rpartition(".")[2] for name in IGNORED if name.rpartition(".")[0] == group}
    assert refused | HONOURED[group] == {option.name for option in fields(kind)}
    assert not refused & HONOURED[group]


def test_a_method_may_honour_one():
    class Honouring(ToyModelConfig):
        honoured = frozenset({"mixed_precision"})

    config = toy(mixed_precision=True)
    config.pipeline.model = Honouring()
    check_options(config)


def test_what_the_stages_decide_is_refused():
    config = deepcopy(vqrf_tiny.config)
    check_options(config)
    config.optimizers["k0"]["optimizer"].skip_zero_grad = True
    with pytest.raises(SceneError, match=r"k0\.optimizer\.skip-zero-grad True has no effect with vqrf-tiny"):
        check_options(config)
    config = deepcopy(vqrf_tiny.config)
    config.optimizers["rgbnet"]["optimizer"].skip_zero_grad = True
    check_options(config)


def test_a_pause_that_nobody_ends_is_refused():
    check_options(toy(start_paused=True, vis="viewer+tensorboard"))
    with pytest.raises(SceneError, match="start-paused True would wait for ever: --vis tensorboard has no viewer"):
        check_options(toy(start_paused=True))


def test_gradients_are_gathered_for_known_groups_alone():
    check_options(toy(gradient_accumulation_steps={"grid": 2}))
    with pytest.raises(SceneError, match="names field, but toy trains grid, scale"):
        check_options(toy(gradient_accumulation_steps={"field": 2}))


def test_nothing_is_written_before_it_is_said(tmp_path):
    config = toy_config(tmp_path / "scene", tmp_path / "out")
    config.pipeline.datamanager.patch_size = 8
    for attempt in (config.save_config, config.setup(local_rank=0, world_size=1).setup):
        with pytest.raises(SceneError, match="patch-size 8 has no effect"):
            attempt()
    assert not list(tmp_path.rglob("*.yml"))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_is_one_of_numpys(seed):
    with pytest.raises(SceneError, match=rf"^--machine\.seed must lie between 0 and 4294967295, not {seed}$"):
        check_options(toy(machine=MachineConfig(seed=seed)))
    check_options(toy(machine=MachineConfig(seed=2**32 - 1)))
