"""The demo config, shrunk further so that a test can train it for a few iterations."""

from pathlib import Path

from mmengine.config import Config

from perception.engine.config import load_config

TINY = {
    "train_dataloader.batch_size": 2,
    "train_dataloader.num_workers": 0,
    "train_dataloader.persistent_workers": False,
    "val_dataloader.batch_size": 2,
    "val_dataloader.num_workers": 0,
    "val_dataloader.persistent_workers": False,
    "test_dataloader.batch_size": 2,
    "test_dataloader.num_workers": 0,
    "test_dataloader.persistent_workers": False,
    "model.backbone.base_channels": 8,
    "model.backbone.stem_channels": 8,
    "model.neck.in_channels": [8, 16, 32],
    "model.transformer.feedforward_channels": 64,
    "model.transformer.num_encoder_layers": 1,
    "model.transformer.num_queries_one2one": 15,
    "model.transformer.num_queries_one2many": 20,
    "default_hooks.logger.interval": 1,
}


def data_options(shapes: Path) -> dict:
    """Options that point the demo config at a data set."""
    return {f"{split}_dataloader.dataset.data_root": f"{shapes}/" for split in ("train", "val", "test")}


def tiny_config(shapes: Path, work_dir: Path, **options) -> Config:
    """The demo config on ``shapes``; ``options`` have ``__`` for dots."""
    dotted = {key.replace("__", "."): value for key, value in options.items()}
    cfg = load_config("configs/demo/rank_detr.py", {**TINY, **data_options(shapes), **dotted}, str(work_dir))
    cfg.launcher = "none"
    cfg.randomness = dict(seed=0)
    return cfg
