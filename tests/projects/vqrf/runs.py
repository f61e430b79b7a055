"""Runs of the registered methods, shrunk and in this process."""

import re
from copy import deepcopy
from pathlib import Path

import torch

from perception.studio.trainer import StudioTrainer
from projects.vqrf.config import vqrf_tiny


def small_config(data: Path, out: Path, **stages: int):
    """`vqrf-tiny` at a fraction of its size; `stages` are steps of `coarse`, `fine` and `compression`."""
    config = deepcopy(vqrf_tiny.config)
    config.data, config.output_dir, config.experiment_name, config.timestamp = data, out, "run", "now"
    config.pipeline.datamanager.data = data
    config.machine.device_type = "cpu"
    config.steps_per_eval_image = 10**9
    config.logging.local_writer.enable = False
    config.pipeline.datamanager.train_num_rays_per_batch = 128
    model = config.pipeline.model
    model.compute_lpips = False
    model.coarse.num_voxels, model.fine.num_voxels = 12**3, 16**3
    model.fine.pg_scale, model.fine.rgbnet_width = (4, 8), 16
    model.compression.codebook_size, model.compression.codebook_iters = 16, 10
    model.compression.codebook_batch, model.compression.k_expire = 200, 2
    model.coarse.iters, model.fine.iters, model.compression.iters = (
        stages.get(name, default) for name, default in (("coarse", 60), ("fine", 20), ("compression", 23))
    )
    return config


def make_trainer(config) -> StudioTrainer:
    """A trainer that is set up as `ns-train` does it."""
    torch.manual_seed(config.machine.seed)
    config.get_base_dir().mkdir(parents=True, exist_ok=True)
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    return trainer


def printed(capsys) -> str:
    """What was printed since the last look, in one line and without the places in code that rich sets beside it."""
    return " ".join(re.sub(r"\w+\.py:\d+", "", capsys.readouterr().out).split())


def train(config) -> StudioTrainer:
    """Train from where the configuration says to its end."""
    trainer = make_trainer(config)
    trainer.train()
    return trainer
