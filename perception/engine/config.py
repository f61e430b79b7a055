"""Reading a config, and checking that the initial weights it names are there before anything slow starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict

from .errors import UserError


def load_config(path: str, options: dict | None = None, work_dir: str | None = None) -> Config:
    """Reads a config, applies ``--cfg-options`` and settles the work directory.

    Args:
        path: a config file.
        options: dotted keys and values that override the file.
        work_dir: folder for logs and checkpoints; default: the config's own, else ``work_dirs/<path below configs>``.

    Raises:
        UserError: the file is missing, not Python, or fails when it is read.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"config {path} does not exist; the recipes are in configs/, such as configs/demo/rank_detr.py")
    try:
        cfg = Config.fromfile(file)
        cfg.merge_from_dict(options or {})
    except Exception as error:  # a config is a program: it can fail in any way
        raise UserError(f"config {path} cannot be used: {type(error).__name__}: {error}") from error
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get("work_dir") is None:
        parts = file.with_suffix("").parts
        below = parts[parts.index("configs") + 1 :] if "configs" in parts else parts[-1:]
        cfg.work_dir = str(Path("work_dirs", *below))
    return cfg


def subconfig(cfg: Config, key: str) -> Config:
    """The part of a config under a dotted key, as a config of its own.

    Raises:
        UserError: there is no such key, or it holds a single value.
    """
    part = cfg
    for name in key.split("."):
        if not isinstance(part, (Config, ConfigDict)) or name not in part:
            raise UserError(f"the config has no {key} ({name} is missing)")
        part = part[name]
    return Config({key.rsplit(".", 1)[-1]: part})


def check_initial_weights(cfg: Config) -> None:
    """Checks that the local files that ``init_cfg`` names exist.

    Raises:
        UserError: naming the first missing file and how to do without.
    """
    for init in _pretrained(cfg.model):
        checkpoint = init["checkpoint"]
        if "://" not in checkpoint and not Path(checkpoint).is_file():
            raise UserError(
                f"initial weights {checkpoint} are missing: put the file there (docs/data.md says whence it comes), "
                "start from random weights with --cfg-options model.backbone.init_cfg=None, "
                "or try configs/demo/, which needs none"
            )


def pretrained_keys(model: dict) -> list[str]:
    """Dotted keys, below ``model``, of every ``init_cfg`` that names a checkpoint."""

    def keys(node: dict, place: str) -> Iterator[str]:
        for key, value in node.items():
            if not isinstance(value, dict):
                continue
            if key == "init_cfg" and value.get("checkpoint"):
                yield f"{place}init_cfg"
            yield from keys(value, f"{place}{key}.")

    return list(keys(model, ""))


def drop_initial_weights(cfg: Config) -> None:
    """Removes every pre-trained ``init_cfg``, for a model whose weights all come from a checkpoint."""
    for init in list(_pretrained(cfg.model)):
        init.clear()


def _pretrained(node: object) -> Iterator[dict]:
    """Every ``init_cfg`` that names a checkpoint."""
    if isinstance(node, dict):
        init = node.get("init_cfg")
        if isinstance(init, dict) and init.get("checkpoint"):
            yield init
        for value in node.values():
            yield from _pretrained(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _pretrained(value)
