"""Starting from weights that were trained with other classes: what depends on classes starts anew, and that is said."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from perception.datasets.class_names import listed

from .checkpoint import state_dict_of
from .class_settings import class_settings
from .errors import UserError


@HOOKS.register_module()
class RenewedHeadHook(Hook):
    """Leaves out of a checkpoint, before a run starts from it, what its classes make useless.

    Weights of another shape than the model's are left out. Where the checkpoint names its classes, and these are others
    than the data's or in another order, all weights whose shape depends on the number of classes are.
    """

    priority = "VERY_HIGH"

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Changes the weights of ``checkpoint``.

        Raises:
            UserError: none of them fits the model.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        given = state_dict_of(checkpoint)
        trained = _classes(checkpoint.get("meta", {}).get("dataset_meta"))
        wanted = _classes(runner.train_dataloader.dataset.metainfo)
        fitting = {key for key, value in given.items() if own.get(key) == tuple(value.shape)}
        if not fitting:
            raise UserError(f"load_from: none of the {len(given)} weights fits the model, so they are of another one")
        renewed = {key for key in given if key in own} - fitting
        if trained and trained != wanted:
            renewed |= class_dependent(runner.cfg) & given.keys()
        kept = fitting - renewed
        checkpoint["state_dict"] = {key: given[key] for key in given if key in kept}
        reason = ""
        if trained and trained != wanted:
            reason = f"; it was trained with the classes {listed(trained)}, these data have {listed(wanted)}"
        missing = sorted(own.keys() - kept)
        anew = f"{len(missing)} start anew ({listed(missing[:5])}{', ...' * (len(missing) > 5)})" if missing else "all"
        runner.logger.info(f"load_from: {len(kept)} of {len(own)} weights are used, {anew}{reason}")


def class_dependent(cfg: Config) -> set[str]:
    """Names of the weights whose shape depends on the number of classes, found by building the model with one more."""
    larger = copy.deepcopy(cfg.model)
    for setting in class_settings(cfg.model):
        *path, name = setting.key.split(".")
        node = larger
        for part in path:
            node = node[int(part)] if part.isdecimal() else node[part]
        node[name] = [*setting.value[:1], *setting.value] if setting.kind == "class_weight" else setting.value + 1
    state = torch.get_rng_state()  # building draws initial weights, and must not change the run's
    try:
        shapes = [{key: value.shape for key, value in _built(model).items()} for model in (cfg.model, larger)]
    finally:
        torch.set_rng_state(state)
    return {key for key, shape in shapes[0].items() if shapes[1].get(key) != shape}


def _built(model: dict) -> Mapping[str, torch.Tensor]:
    return MODELS.build(copy.deepcopy(model)).state_dict()


def _classes(metainfo: Mapping | None) -> tuple[str, ...]:
    known = metainfo or {}
    return tuple(known.get("classes") or known.get("CLASSES") or ())
