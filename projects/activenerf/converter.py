"""The authors' checkpoints (`{step:06d}.tar`) to ours and back.

All parameters have the authors' names. A file of ours holds ``coarse`` and ``fine``, each with its ``settings`` and
``state_dict``, and in ``meta`` the step and the views; or it is the checkpoint of a run, whose networks have the
prefixes ``_model.field_coarse`` and ``_model.field_fine``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perception.engine.convert import Conversion, State, count_numbers, require_complete, require_weight
from perception.engine.errors import UserError
from projects.activenerf.field import CHANNELS, ActiveNeRFField

NETWORKS = {"coarse": "network_fn_state_dict", "fine": "network_fine_state_dict"}
READ = {"global_step", "i_train", "i_holdout", "beta_min", *NETWORKS.values()}
"""Entries of the authors' files that are looked at."""
RUN = {"step", "pipeline", "run"}
"""Entries of the checkpoint of a run."""
MODEL = "ActiveNeRF"
BETA_MIN = 0.01  # the authors' default
ARGS = "args.txt"  # where their code writes its settings, beside its checkpoints


class Parts(NamedTuple):
    """What a file holds."""

    coarse: ActiveNeRFField
    fine: ActiveNeRFField
    step: int
    train: tuple[int, ...]
    """Views that were trained on, in their order."""
    holdout: tuple[int, ...]
    """Views that could have been acquired."""


def to_perception(checkpoint: Mapping[str, Any]) -> Conversion:
    """A file of the authors as one of ours. Adam's moments are left out: they are kept by number, not by name.

    The smallest variance is no weight: it is the entry ``beta_min`` that :func:`read_checkpoint` and
    :func:`to_authors` add, or the authors' default.
    """
    parts = _read_authors(checkpoint)
    return _converted(ours(parts), parts, [key for key in checkpoint if key not in READ])


def to_authors(checkpoint: Mapping[str, Any]) -> Conversion:
    """A file of ours, or the checkpoint of a run, as one that the authors' loader reads; Adam's moments are new.

    Their code must be given the same ``--beta_min``, which the file holds besides.
    """
    parts = _read_ours(checkpoint)
    return _converted(authors(parts), parts, [])


def read_parts(checkpoint: Mapping[str, Any]) -> Parts:
    """The networks of any of these files.

    Raises:
        UserError: it holds none, or incomplete ones.
    """
    own = isinstance(checkpoint.get("coarse"), Mapping) or checkpoint.keys() >= RUN
    return _read_ours(checkpoint) if own else _read_authors(checkpoint)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of any of these files; of the authors' with the ``beta_min`` that `args.txt` beside it states.

    Raises:
        UserError: it cannot be read.
    """
    from perception.engine.checkpoint import load_checkpoint_file  # imports MMEngine

    checkpoint = dict(load_checkpoint_file(path))
    stated = Path(path).with_name(ARGS)
    if checkpoint.keys() >= set(NETWORKS.values()) and "beta_min" not in checkpoint and stated.is_file():
        text = stated.read_text(errors="replace")
        if found := re.search(r"^beta_min = (\S+)$", text, re.MULTILINE):
            checkpoint["beta_min"] = found[1]
    return checkpoint


def read_fields(path: Path) -> tuple[ActiveNeRFField, ActiveNeRFField]:
    """The coarse and the fine network of a file.

    Raises:
        UserError: it cannot be read.
    """
    parts = read_parts(read_checkpoint(path))
    return parts.coarse, parts.fine


def ours(parts: Parts) -> dict[str, Any]:
    """The content of a file of ours."""
    views = {"train": list(parts.train), "holdout": list(parts.holdout)}
    content: dict[str, Any] = {"meta": {"system": "activenerf", "step": parts.step, "views": views}}
    for name in NETWORKS:
        network: ActiveNeRFField = getattr(parts, name)
        content[name] = {"settings": network.settings(), "state_dict": dict(network.state_dict())}
    return content


def authors(parts: Parts) -> dict[str, Any]:
    """The content of a file for the authors' code."""
    networks = {key: dict(getattr(parts, name).state_dict()) for name, key in NETWORKS.items()}
    pools = {"i_train": parts.train, "i_holdout": parts.holdout}
    views = {name: torch.tensor(pool, dtype=torch.long).numpy() for name, pool in pools.items()}
    # Their loader asks for an optimiser's state; the rate is their default, and follows from the step.
    adam = torch.optim.Adam([*parts.coarse.parameters(), *parts.fine.parameters()], lr=5e-4)
    content = {"global_step": parts.step, **views, **networks, "optimizer_state_dict": adam.state_dict()}
    return {**content, "beta_min": parts.fine.beta_min}


def _converted(content: dict[str, Any], parts: Parts, left_out: list[str]) -> Conversion:
    settings = parts.fine.settings()
    description = f"two networks of {settings['depth']} layers of {settings['width']}, after {parts.step} steps"
    count = len(parts.coarse.state_dict()) + len(parts.fine.state_dict())
    return Conversion(content, unmatched=left_out, num_weights=count, description=description)


def _read_authors(checkpoint: Mapping[str, Any]) -> Parts:
    missing = [key for key in NETWORKS.values() if not isinstance(checkpoint.get(key), Mapping)]
    if missing:
        raise UserError(f"this file does not hold an {MODEL} model: it has no {' and no '.join(missing)}")
    networks = [_network(_stripped(checkpoint[key]), _smallest_variance(checkpoint)) for key in NETWORKS.values()]
    views = [tuple(int(view) for view in checkpoint.get(key, ())) for key in ("i_train", "i_holdout")]
    return Parts(*networks, int(checkpoint.get("global_step", 0)), *views)


def _smallest_variance(checkpoint: Mapping[str, Any]) -> float:
    stated = checkpoint.get("beta_min", BETA_MIN)
    try:
        number = float(stated)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise UserError(f"beta_min, the smallest variance, is stated as {stated!r}")
    return number


def _read_ours(checkpoint: Mapping[str, Any]) -> Parts:
    if checkpoint.keys() >= RUN:
        return _read_run(checkpoint)
    try:
        networks = []
        for name in NETWORKS:
            network = ActiveNeRFField(**checkpoint[name]["settings"])
            network.load_state_dict(checkpoint[name]["state_dict"])
            networks.append(network)
        meta = checkpoint["meta"]
        views = [tuple(meta["views"][pool]) for pool in ("train", "holdout")]
        return Parts(*networks, int(meta["step"]), *views)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"this file is damaged or of another version: {' '.join(str(error).split())}") from None


def _read_run(checkpoint: Mapping[str, Any]) -> Parts:
    state = {key.removeprefix("_model."): value for key, value in checkpoint["pipeline"].items()}
    if "view_acquired" not in state:
        raise UserError(f"this is a checkpoint of the method {checkpoint['run']['method']}, not of {MODEL}")
    beta_min = checkpoint["run"]["settings"]["pipeline.model.beta_min"]
    networks = [_network(_below(state, f"field_{name}"), beta_min) for name in NETWORKS]
    acquired, rank = state["view_acquired"].tolist(), state["view_rank"].tolist()
    active = sorted((when, place, view) for view, (when, place) in enumerate(zip(acquired, rank)) if when >= 0)
    train, holdout = tuple(view for *_, view in active), tuple(view for view, when in enumerate(acquired) if when < 0)
    return Parts(*networks, checkpoint["step"] + 1, train, holdout)


def _below(state: Mapping[str, Any], name: str) -> State:
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def _network(weights: State, beta_min: float) -> ActiveNeRFField:
    first = require_weight(weights, "pts_linears.0.weight", MODEL)
    directions = require_weight(weights, "views_linears.0.weight", MODEL)
    use_viewdirs = "output_linear.weight" not in weights
    depth, (width, places) = count_numbers(weights, r"pts_linears\.(\d+)\.weight"), first.shape
    layers = [require_weight(weights, f"pts_linears.{layer}.weight", MODEL) for layer in range(depth)]
    network = ActiveNeRFField(
        depth=depth,
        width=width,
        skips=tuple(layer - 1 for layer in range(1, depth) if layers[layer].shape[1] == width + places),
        multires=_octaves(places),
        multires_views=_octaves(directions.shape[1] - width) if use_viewdirs else 4,
        beta_min=beta_min,
        use_viewdirs=use_viewdirs,
    )
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    require_complete(weights, shapes, MODEL)
    if left := [key for key in weights if key not in shapes]:
        raise UserError(f"this file holds more than an {MODEL} model of {CHANNELS} channels: {', '.join(left[:3])}")
    network.load_state_dict(weights)
    return network


def _octaves(channels: int) -> int:
    """Of the encoding that has so many channels."""
    if channels < 3 or (channels - 3) % 6:
        raise UserError(f"this file does not hold an {MODEL} model: {channels} channels are no encoding of 3 numbers")
    return -1 if channels == 3 else (channels - 3) // 6


def _stripped(state: Mapping[str, Any]) -> State:
    return {name.removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}
