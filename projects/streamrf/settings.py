"""The numbers of the recipe: defaults are those of Meet Room, other presets stand in ``config.py``."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from perception.studio.errors import SceneError

FIRST_PILOT = 10  # times as many steps, of the pilot on the first frame


@dataclass
class BaseSettings:
    """The field of the first frame."""

    iters: int = 128_000
    """Training steps."""
    rays: int = 5000
    """Rays per step."""
    resolutions: tuple[tuple[int, int, int], ...] = ((256, 256, 128), (512, 512, 128), (768, 768, 128))
    """Voxels along x, y and z, one after another."""
    upsample_at: tuple[int, ...] = (38_400, 76_800)
    """Steps after which the next resolution begins."""
    lr_sigma: float = 30.0
    """Learning rate of densities at the start, before the warm-up."""
    lr_sigma_final: float = 0.05
    """The same after `lr_steps` steps."""
    lr_sigma_delay: int = 15_000
    """Steps in which the rate of densities rises from a hundredth of what it would be."""
    lr_sh: float = 1e-2
    """Learning rate of coefficients at the start."""
    lr_sh_final: float = 5e-6
    """The same after `lr_steps` steps."""
    lr_steps: int = 250_000
    """Steps in which rates fall, exponentially."""
    weight_tv: float = 5e-3
    """Weight of the total variation of densities."""
    weight_tv_sh: float = 5e-2
    """Weight of the total variation of coefficients."""
    dilate: int = 2
    """Layers of voxels that are kept around those that are dense enough."""
    stop_thresh: float = 1e-7
    """A ray ends where less light than this is left."""


@dataclass
class FrameSettings:
    """What is done for every later frame, at one resolution."""

    iters: int
    """Training steps."""
    rays: int = 20_000
    """Rays per step."""
    lr_sigma: float = 1.0
    """Learning rate of densities."""
    lr_sh: float = 1e-2
    """Learning rate of coefficients at the start."""
    lr_sh_final: float = 1e-2
    """The same after `lr_steps` steps."""
    lr_steps: int = 500
    """Steps in which the rate of coefficients falls, exponentially; it stays from then on."""
    keep_threshold: float = 1.5
    """Voxels whose coefficients changed by no more in all keep their values of the frame before (sh_keep_thres)."""
    prune_threshold: float = 0.3
    """New voxels whose coefficients sum to less are left out (sh_prune_thres)."""
    dilate_before: int = 2
    """Layers of empty voxels that are added before training."""
    dilate_after: int = 2
    """Layers that are kept around voxels that are dense enough."""
    weight_tv: float = 5e-3
    """Weight of the total variation of densities."""
    weight_tv_sh: float = 5e-2
    """Weight of the total variation of coefficients."""
    stop_thresh: float = 0.01
    """A ray ends where less light than this is left."""


def first_pilot(settings: FrameSettings) -> FrameSettings:
    """The settings of the pilot on the first frame: ten times as long, with rates that fall ten times as slowly."""
    return replace(settings, iters=FIRST_PILOT * settings.iters, lr_steps=FIRST_PILOT * settings.lr_steps)


def log_linear_rate(step: int, start: float, final: float, steps: int, delay: int = 0) -> float:
    """A learning rate that falls exponentially from ``start`` to ``final`` in ``steps`` steps and stays.

    Args:
        step: counted from 0.
        start, final: rates; both are 0 where nothing is to change.
        steps: in which it falls.
        delay: steps in which it rises by a quarter of a sine, from a hundredth.
    """
    if start == final == 0:
        return 0.0
    share = min(step / steps, 1.0)
    rate = math.exp((1 - share) * math.log(start) + share * math.log(final))
    if delay:
        rate *= 0.01 + 0.99 * math.sin(math.pi / 2 * min(step / delay, 1.0))
    return rate


def check_base(settings: BaseSettings) -> None:
    """Raise where the first stage could not work.

    Raises:
        SceneError: the message names the option.
    """
    if len(settings.resolutions) != len(settings.upsample_at) + 1:
        raise SceneError(
            f"base.resolutions names {len(settings.resolutions)} sizes, and base.upsample-at "
            f"{len(settings.upsample_at)} changes of them: there must be one size more"
        )
    if list(settings.upsample_at) != sorted(set(settings.upsample_at)) or any(
        not 0 < step < settings.iters for step in settings.upsample_at
    ):
        raise SceneError(
            f"base.upsample-at {settings.upsample_at} must rise, between 0 and base.iters {settings.iters}"
        )
    if any(size < 4 for resolution in settings.resolutions for size in resolution):
        raise SceneError(f"base.resolutions {settings.resolutions}: a grid needs at least 4 voxels along each axis")


def check_frames(name: str, settings: FrameSettings) -> None:
    """Raise where a later frame could not be trained.

    Raises:
        SceneError: the message names the option.
    """
    for option in ("rays", "lr_steps"):
        if (value := getattr(settings, option)) < 1:
            raise SceneError(f"{name}.{option.replace('_', '-')} must be at least 1, not {value}")
    for option in ("dilate_before", "dilate_after", "keep_threshold", "prune_threshold"):
        if (value := getattr(settings, option)) < 0:
            raise SceneError(f"{name}.{option.replace('_', '-')} must not be negative, not {value}")
