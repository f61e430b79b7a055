"""A small video of several cameras in the layout that the data parser reads, and runs on it."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from projects.streamrf.config import streamrf_tiny
from projects.streamrf.settings import BaseSettings, FrameSettings

WIDTH, HEIGHT, FOCAL = 24, 18, 24.0
PLACES = [(0.0, 0.0), (-0.4, 0.0), (0.4, 0.0), (0.0, 0.3), (0.0, -0.3), (-0.3, 0.2)]
FRAMES = 3


def picture(moment: float, camera: int) -> np.ndarray:
    """A ball that moves in front of a wall."""
    place = np.array([*PLACES[camera], 0.0])
    v, u = np.meshgrid(np.arange(HEIGHT) + 0.5, np.arange(WIDTH) + 0.5, indexing="ij")
    along = np.stack([(u - WIDTH / 2) / FOCAL, (HEIGHT / 2 - v) / FOCAL, -np.ones_like(u)], -1)
    wall = place + (5.0 / 1.0) * along
    colour = 0.5 + 0.25 * np.stack([np.sin(2 * wall[..., 0]), np.cos(2 * wall[..., 1]), np.sin(wall.sum(-1))], -1)
    offset = place - np.array([-0.4 + 0.2 * moment, 0.0, -2.5])
    a, b = (along**2).sum(-1), (along * offset).sum(-1)
    inside = b**2 - a * ((offset**2).sum() - 0.4**2)
    colour = np.where(inside[..., None] > 0, np.array([0.9, 0.2, 0.2]), colour)
    return np.round(255 * colour.clip(0, 1)).astype(np.uint8)


def write_video(folder: Path, frames: int = FRAMES, moment: Callable[[int], float] = float) -> Path:
    """Folders 0000, 0001, ... with images/cam00.png ... and poses_bounds.npy; ``moment`` says when each frame is."""
    rows = []
    for x, y in PLACES:
        # Columns down, right, backwards, place; then height, width and focal length.
        matrix = np.array([[0, 1, 0, x], [-1, 0, 0, y], [0, 0, 1, 0.0]])
        matrix = np.concatenate([matrix, [[HEIGHT], [WIDTH], [FOCAL]]], 1)
        rows.append([*matrix.reshape(-1), 2.0, 6.0])
    for frame in range(frames):
        images = folder / f"{frame:04d}" / "images"
        images.mkdir(parents=True)
        for camera in range(len(PLACES)):
            Image.fromarray(picture(moment(frame), camera)).save(images / f"cam{camera:02d}.png")
        np.save(folder / f"{frame:04d}" / "poses_bounds.npy", np.array(rows))
    return folder


def small_config(data: Path, out: Path, **model):
    """A run of 20 steps for the first frame and 4 for each field of later ones, on 16 voxels a side."""
    config = copy.deepcopy(streamrf_tiny.config)
    config.output_dir, config.experiment_name, config.timestamp, config.data = out, "run", "now", data
    config.steps_per_save = 5
    config.machine.device_type = "cpu"
    config.logging.local_writer.enable = False
    frames = FrameSettings(
        iters=4, rays=64, lr_sigma=0.5, lr_sh=2e-2, lr_sh_final=1e-2, keep_threshold=0.1, prune_threshold=0.05
    )
    settings = dict(
        base=BaseSettings(
            iters=20,
            rays=64,
            resolutions=((8, 8, 8), (16, 16, 16)),
            upsample_at=(8,),
            lr_sigma=10.0,
            lr_sigma_final=2.0,
            lr_sigma_delay=0,
            lr_sh=3e-2,
            lr_sh_final=1e-2,
            lr_steps=20,
        ),
        pilot=frames,
        full=frames,
        offset=4.0,
        band=False,  # so short a training leaves no empty space, and nothing near its border
        compute_lpips=False,
        sh_step=0.0,
    )
    for name, value in {**settings, **model}.items():
        setattr(config.pipeline.model, name, value)
    return config


def make_trainer(config):
    """A trainer set up as `ns-train` does it."""
    torch.manual_seed(config.machine.seed)
    config.get_base_dir().mkdir(parents=True, exist_ok=True)
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    return trainer


def train(config):
    """Train from where the configuration says to its end."""
    trainer = make_trainer(config)
    trainer.train()
    return trainer
