"""From a config to a training or test run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint

from . import checkpoint, screen
from .atomic import output_folder
from .config import check_initial_weights, drop_initial_weights
from .data_check import check_data, check_labels
from .dump import DumpPredictions
from .errors import UserError
from .fine_tuning import RenewedHeadHook
from .resumed import ResumedRunHook


def build_train_runner(cfg: Config) -> Runner:
    """Checks what training needs and builds the runner.

    Args:
        cfg: the config, with ``launcher``, ``resume`` and ``load_from`` settled.

    Raises:
        UserError: data, initial weights or a checkpoint is missing, such as the one that ``resume`` looks for; or the
            work directory cannot be made.
    """
    checkpoint.install()
    if cfg.get("load_from") and not Path(cfg.load_from).is_file():
        raise UserError(f"checkpoint {cfg.load_from} does not exist")
    if cfg.get("resume") and not cfg.get("load_from"):
        _check_that_there_is_a_run(cfg.work_dir)
    check_data(cfg, ("train", "val"))
    if not cfg.get("load_from"):
        check_initial_weights(cfg)
    elif not cfg.get("resume"):
        cfg.custom_hooks = [*(cfg.get("custom_hooks") or ()), dict(type=RenewedHeadHook)]
    if cfg.get("resume"):
        cfg.custom_hooks = [*(cfg.get("custom_hooks") or ()), dict(type=ResumedRunHook)]
    return _runner(cfg)


def build_test_runner(cfg: Config, weights: str, out: str | None = None, show_dir: str | None = None) -> Runner:
    """Checks what testing needs and builds the runner, with the weights loaded.

    Args:
        cfg: the config, with ``launcher`` settled.
        weights: checkpoint file, which must fill the model completely.
        out: pickle file for all predictions.
        show_dir: folder for pictures of predictions beside the ground truth.

    Raises:
        UserError: data or checkpoint is missing, the checkpoint is of another model, or a folder for results cannot be
            made.
    """
    checkpoint.install()
    if out is not None and not out.endswith((".pkl", ".pickle")):
        raise UserError(f"--out must end in .pkl or .pickle, got {out}")
    loaded = checkpoint.load_checkpoint_file(weights)
    check_data(cfg, ("test",))
    check_labels(cfg, loaded, weights)
    if show_dir is not None:
        hook = cfg.default_hooks.get("visualization")
        if hook is None:
            raise UserError("--show-dir needs default_hooks.visualization in the config, which draws the pictures")
        hook.update(draw=True, interval=1, test_out_dir=str(output_folder(show_dir).resolve()))
    if out is not None:
        output_folder(Path(out).parent)
    drop_initial_weights(cfg)
    cfg.load_from, cfg.resume = None, False  # where training starts; MMEngine would load that over the weights here
    runner = _runner(cfg)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    checkpoint.load_weights(model, loaded, weights)
    if out is not None:
        runner.test_evaluator.metrics.append(DumpPredictions(out_file_path=out))
    return runner


def _check_that_there_is_a_run(work_dir: str) -> None:
    pointer = Path(work_dir, "last_checkpoint")
    if not pointer.is_file():
        raise UserError(
            f"nothing to resume: {work_dir} has no checkpoint yet; leave out --resume to start from the beginning, "
            "name the folder with --work-dir, or a file with --resume CHECKPOINT"
        )
    newest = find_latest_checkpoint(work_dir)
    if newest is None or not Path(newest).is_file():
        raise UserError(
            f"cannot resume: {pointer} names {newest}, which does not exist; was the folder moved? "
            "Name the file with --resume CHECKPOINT"
        )


def _runner(cfg: Config) -> Runner:
    if cfg.get("launcher", "none") != "none" and not torch.cuda.is_available():
        _use_gloo(cfg)
    if "logger" in cfg.get("default_hooks", {}) and "by_epoch" in cfg.get("log_processor", {}):
        # MMEngine files metrics under the epoch unless it is told, and runs that count iterations stay in epoch 0.
        cfg.default_hooks.logger.setdefault("log_metric_by_epoch", cfg.log_processor.by_epoch)
    output_folder(cfg.work_dir)
    runner_class = RUNNERS.get(cfg.runner_type) if "runner_type" in cfg else QuietRunner
    return runner_class.from_cfg(cfg)


class QuietRunner(Runner):
    """MMEngine's runner, whose long messages about the set-up go to its log file only."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Builds the logger, and says where its file is."""
        logger = super().build_logger(*args, **kwargs)
        screen.hide_setup(logger)
        logger.info(f"Environment, config and all that follows: {logger.log_file}")
        return logger


def use_amp(cfg: Config) -> None:
    """Turns the config's optimiser wrapper into its mixed-precision form: float16 on CUDA, bfloat16 on the CPU."""
    if torch.cuda.is_available():
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        cfg.optim_wrapper.setdefault("loss_scale", "dynamic")
    else:
        from . import amp  # noqa: F401  (registers the wrapper)

        cfg.optim_wrapper.type = "Bfloat16OptimWrapper"


def use_auto_scale_lr(cfg: Config) -> None:
    """Scales the learning rate by the real batch size over the one that the recipe was tuned for.

    Raises:
        UserError: the config does not say which batch size that is.
    """
    if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
        raise UserError("--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=N) in the config")
    cfg.auto_scale_lr.enable = True


def _use_gloo(cfg: Config) -> None:
    """Several processes without CUDA: MMEngine's own set-up insists on a CUDA device, so the group is made here."""
    if cfg.launcher != "pytorch":
        raise UserError(f"--launcher {cfg.launcher} needs CUDA devices; else use torchrun with --launcher pytorch")
    if "RANK" not in os.environ:
        raise UserError(
            "--launcher pytorch expects torchrun: torchrun --nproc_per_node 2 tools/train.py CONFIG --launcher pytorch"
        )
    if cfg.get("sync_bn"):
        cfg.sync_bn = None
        if os.environ["RANK"] == "0":
            print("warning: without CUDA each process has batch statistics of its own", file=sys.stderr, flush=True)
    dist.init_process_group("gloo")
    cfg.model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False)
