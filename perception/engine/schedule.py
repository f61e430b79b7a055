"""Learning rate and schedule of a recipe, carried over to another batch and another number of images."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mmengine.config import Config


@dataclass(frozen=True)
class Change:
    """Settings as lines of a config, and what to say of them."""

    note: str
    lines: list[str]


def scaled_learning_rate(cfg: Config, images: int) -> Change:
    """The learning rate by the linear rule: proportional to the images of a step.

    Args:
        cfg: with ``auto_scale_lr.base_batch_size``, the images of a step that the recipe's rate is meant for.
        images: of a step.
    """
    base = cfg.get("auto_scale_lr", {}).get("base_batch_size")
    rate = cfg.optim_wrapper.optimizer.lr
    if base is None:
        return Change(f"learning rate {rate:g}: the recipe does not say for which batch it is meant", [])
    if base == images:
        return Change(f"learning rate {rate:g}, as the recipe's for {base} images", [])
    new = float(f"{rate * images / base:.6g}")
    lines = [
        f"optim_wrapper.optimizer.lr = {new!r}  # {rate:g} x {images} / {base}",
        f"auto_scale_lr.base_batch_size = {images}",
    ]
    for number, entry in enumerate(cfg.param_scheduler):
        if entry.get("eta_min"):
            lines.append(f"param_scheduler[{number}].eta_min = {float(f'{entry.eta_min * images / base:.6g}')!r}")
    return Change(
        f"learning rate {new:g} = {rate:g} x {images} / {base}, in proportion to the {base} images that the recipe's "
        "is meant for",
        lines,
    )


def scaled_schedule(cfg: Config, num_images: int, batch: int, epochs: int | None) -> Change:
    """The recipe's schedule, stretched to a number of epochs.

    Warm-up keeps its length but for runs that are shorter than ten times that.

    Args:
        cfg: of the recipe.
        num_images: that are trained on.
        batch: images of a step.
        epochs: passes over the images; None: the schedule stays.
    """
    per_epoch = max(1, math.ceil(num_images / batch))
    steps = cfg.train_cfg.get("max_iters")
    if steps is None:
        return _epochs(cfg, per_epoch, epochs)
    if epochs is None:
        return Change(
            f"schedule of the recipe: {steps} steps, here {steps / per_epoch:.3g} epochs (--epochs stretches it)", []
        )
    total = epochs * per_epoch
    ratio = total / steps
    lines = [f"train_cfg.max_iters = {total}"]
    interval = cfg.train_cfg.get("val_interval")
    if interval:
        lines.append(f"train_cfg.val_interval = {_scaled(interval, ratio)}")
    if not cfg.default_hooks.checkpoint.get("by_epoch", True):
        lines.append(f"default_hooks.checkpoint.interval = {_scaled(cfg.default_hooks.checkpoint.interval, ratio)}")
    lines += _scheduler_lines(cfg, ratio, total)
    switch = cfg.model.get("criterion", {}).get("matcher", {}).get("change_iter")
    if switch:
        lines.append(f"model.criterion.matcher.change_iter = {_scaled(switch, ratio)}")
    return Change(f"{epochs} epochs of {per_epoch} steps; the recipe's schedule of {steps} steps is stretched", lines)


def _epochs(cfg: Config, per_epoch: int, epochs: int | None) -> Change:
    given = cfg.train_cfg.max_epochs
    epochs = epochs or given
    total = epochs * per_epoch
    lines = _scheduler_lines(cfg, epochs / given, total)
    if epochs == given:
        return Change(f"schedule of the recipe: {given} epochs, here of {per_epoch} steps", lines)
    interval = cfg.train_cfg.get("val_interval") or 1
    lines = [
        f"train_cfg.max_epochs = {epochs}",
        f"train_cfg.val_interval = {min(epochs, _scaled(interval, epochs / given))}",
        *lines,
    ]
    return Change(f"{epochs} epochs of {per_epoch} steps; the recipe's schedule of {given} epochs is stretched", lines)


def _scheduler_lines(cfg: Config, ratio: float, total: int) -> list[str]:
    """Settings of the learning rate's course.

    Args:
        ratio: new over old length of the run, in what it counts.
        total: steps of the whole run.
    """
    counts_steps = "max_iters" in cfg.train_cfg
    lines = []
    warm_up = {}
    for number, entry in enumerate(cfg.param_scheduler):
        key = f"param_scheduler[{number}]"
        in_steps = not entry.get("by_epoch", True)
        if in_steps and entry.get("begin", 0) == 0 and "start_factor" in entry:
            warm_up[entry.end] = min(entry.end, max(1, total // 10))
            if warm_up[entry.end] != entry.end:
                lines.append(f"{key}.end = {warm_up[entry.end]}")
            continue
        # A course in steps within a run that counts epochs has to end with it.
        factor = total / entry.end if in_steps and not counts_steps else ratio
        for name in ("begin", "end", "T_max"):
            value = entry.get(name)
            if isinstance(value, int) and value:
                new = warm_up.get(value) if name == "begin" else None
                new = _scaled(value, factor) if new is None else new
                lines += [f"{key}.{name} = {new}"] if new != value else []
        milestones = [_scaled(value, factor) for value in entry.get("milestones", ())]
        if milestones != list(entry.get("milestones", ())):
            lines.append(f"{key}.milestones = {milestones!r}")
    return lines


def _scaled(value: int, ratio: float) -> int:
    return max(1, round(value * ratio))
