"""Runs of the registered methods, shrunk and in this process."""

from copy import deepcopy
from pathlib import Path

import torch

from perception.studio.samplers import PatchSamplerConfig
from perception.studio.trainer import StudioTrainer
from projects.nerf_4k.config import nerf_4k_bounded, nerf_4k_tiny

ENCODER, JOINT = 12, 9


def small_config(data: Path, out: Path, method=nerf_4k_tiny):
    """A forward-facing run of ``ENCODER`` + ``JOINT`` steps, with a discriminator."""
    config = _shrunk(method, data, out)
    encoder = config.pipeline.model.encoder
    encoder.iters, encoder.num_voxels, encoder.mpi_depth = ENCODER, 12 * 10 * 8, 8
    encoder.pg_scale, encoder.rgbnet_width = (4, 8), 8
    return config


def small_bounded_config(data: Path, out: Path, scale: int):
    """A run on a bounded scene: 30 + 12 + ``JOINT`` steps."""
    config = _shrunk(nerf_4k_bounded, data, out)
    model = config.pipeline.model
    model.scale = config.pipeline.datamanager.scale = scale
    config.pipeline.datamanager.sampler = PatchSamplerConfig(side=10, min_pixels=40)
    model.coarse.num_voxels, model.fine.num_voxels = 12**3, 16**3
    model.coarse.iters, model.fine.iters, model.fine.pg_scale, model.fine.rgbnet_width = 30, 12, (4, 8), 16
    model.coarse.alpha_init, model.coarse.fast_color_thres = 1e-2, 1e-5
    return config


def _shrunk(method, data: Path, out: Path):
    config = deepcopy(method.config)
    config.data, config.output_dir, config.experiment_name, config.timestamp = data, out, "run", "now"
    config.pipeline.datamanager.data = data
    config.machine.device_type = "cpu"
    config.steps_per_eval_image = 10**9
    config.logging.local_writer.enable = False
    config.pipeline.datamanager.train_num_rays_per_batch = 100
    model = config.pipeline.model
    model.compute_lpips, model.report_split = False, "none"
    model.decoder.num_feat, model.decoder.num_block, model.decoder.num_grow_ch = 8, 1, 4
    config.pipeline.datamanager.sampler = PatchSamplerConfig(side=10)
    model.joint.iters = JOINT
    model.joint.weight_gan, model.joint.discriminator_feat = 0.05, 4
    return config


def make_trainer(config) -> StudioTrainer:
    """A trainer that is set up as `ns-train` does it."""
    torch.manual_seed(config.machine.seed)
    config.get_base_dir().mkdir(parents=True, exist_ok=True)
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    return trainer


def train(config) -> StudioTrainer:
    """Train from where the configuration says to its end."""
    trainer = make_trainer(config)
    trainer.train()
    return trainer
