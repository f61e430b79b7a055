"""Short runs through nerfstudio's trainer."""

import copy
from pathlib import Path

import torch

from projects.rise_sdf.config import neus_blender, rise_sdf_tiny
from projects.rise_sdf.model import StageSettings
from tests.projects.rise_sdf.cases import GEOMETRY, HEADS

STEPS = 14


def short_config(data: Path, out: Path, *, neus: bool = False):
    """A run of `STEPS` steps: 8 of the radiance field, then with light."""
    config = copy.deepcopy((neus_blender if neus else rise_sdf_tiny).config)
    config.output_dir, config.experiment_name, config.timestamp, config.data = out, "run", "now", data
    config.machine.device_type = "cpu"
    config.logging.local_writer.enable = False
    config.steps_per_eval_image = 0
    config.steps_per_save = 1000
    model = config.pipeline.model
    model.compute_lpips = False
    model.heads = HEADS
    model.num_rays, model.max_rays = 48, 96
    gradient = model.geometry.gradient
    model.geometry = copy.deepcopy(GEOMETRY)
    model.geometry.gradient = gradient
    if neus:
        model.training = StageSettings(STEPS)
    else:
        model.radiance, model.physical = StageSettings(8), StageSettings(STEPS - 8)
        model.target_samples = 1500
        model.loss.curvature = (0.5,)
    config.pipeline.datamanager.data = data
    return config


def train(config):
    """Train from where the configuration says to its end."""
    torch.manual_seed(config.machine.seed)
    config.get_base_dir().mkdir(parents=True, exist_ok=True)
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    trainer.train()
    return trainer
