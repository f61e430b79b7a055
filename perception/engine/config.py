"""Reading a config, and checking that the initial weights it names are there before anything slow starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict

from .errors import UserError
from .overrides import check_overrides

# Where the recipes are: in an installed package beside its modules, in a checkout beside the package.
PACKAGED_RECIPES = Path(__file__).resolve().parents[1] / "configs"
CHECKOUT_RECIPES = Path(__file__).resolve().parents[2] / "configs"


def load_config(path: str, options: dict | None = None, work_dir: str | None = None) -> Config:
    """Reads a config, applies ``--cfg-options`` and settles the work directory.

    Args:
        path: a config file, or the name of a recipe (see :func:`find_config`).
        options: dotted keys and values that override the file.
        work_dir: folder for logs and checkpoints; default: the config's own, else ``work_dirs/<path below configs>``.

    Raises:
        UserError: the file is missing, not Python, or fails when it is read; or nothing reads one of the options.
    """
    file = find_config(path)
    if file is None:
        raise UserError(f"config {path} does not exist; the recipes are in configs/, such as configs/demo/rank_detr.py")
    try:
        cfg = Config.fromfile(file)
        check_overrides(cfg, options or {})
        cfg.merge_from_dict(options or {})
    except UserError:
        raise
    except Exception as error:  # a config is a program: it can fail in any way
        raise UserError(f"config {path} cannot be used: {type(error).__name__}: {error}") from error
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get("work_dir") is None:
        parts = file.with_suffix("").parts
        below = parts[len(parts) - parts[::-1].index("configs") :] if "configs" in parts else parts[-1:]
        cfg.work_dir = str(Path("work_dirs", *below))
    return cfg


def find_config(name: str) -> Path | None:
    """The file of a config.

    Args:
        name: a file; or a recipe by its place below `configs`, such as `rank_detr`, `demo/rank_detr.py` or
            `configs/rank_detr.py`, which is found from any folder. A file goes before a recipe.

    Returns:
        The file, or None where there is none.
    """
    if Path(name).is_file():
        return Path(name)
    recipe = Path(name)
    if recipe.is_absolute() or ".." in recipe.parts:
        return None
    below = recipe.relative_to("configs") if recipe.parts[:1] == ("configs",) else recipe
    places = (folder / below for folder in (PACKAGED_RECIPES, CHECKOUT_RECIPES))
    files = (place if below.suffix == ".py" else place.with_name(f"{place.name}.py") for place in places)
    return next((file for file in files if file.is_file()), None)


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
