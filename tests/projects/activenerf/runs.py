"""Runs of the registered methods, shrunk and in this process."""

from copy import deepcopy
from pathlib import Path

import torch

from perception.studio.trainer import StudioTrainer
from projects.activenerf.config import activenerf_tiny

ITERS, ACTIVE = 6, (2, 4)


def small_config(data: Path, out: Path, method=activenerf_tiny):
    """A run of ``ITERS`` steps that begins with 3 views and acquires one before each step of ``ACTIVE``."""
    config = deepcopy(method.config)
    config.data, config.output_dir, config.experiment_name, config.timestamp = data, out, "run", "now"
    config.machine.device_type = "cpu"
    config.steps_per_eval_image = 10**9
    config.logging.local_writer.enable = False
    manager, model = config.pipeline.datamanager, config.pipeline.model
    manager.data, manager.train_num_rays_per_batch, manager.initial_views = data, 100, 3
    model.compute_lpips = False
    model.num_coarse_samples, model.num_importance_samples = 8, 8
    model.depth, model.width, model.skips, model.multires, model.multires_views = 3, 16, (1,), 3, 1
    model.training.iters, model.active_iters, model.choose_k = ITERS, ACTIVE, 1
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
