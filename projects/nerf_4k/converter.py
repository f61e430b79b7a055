"""The authors' files to ours and back: encoders (`.tar`), decoders and discriminators (`.pth`), and a start of the
decoder's trunk from Real-ESRNet.

All parameters have the authors' names. A file of ours holds ``encoder``, ``decoder`` and ``discriminator``, or some of
them, each with its ``settings`` and ``state_dict``, in tensors and plain containers alone; or it is the checkpoint of a
run, whose networks have the prefixes ``_model.field``, ``_model.decoder`` and ``_model.discriminator``. A file for the
authors' code holds all that there is under the names that its loaders look for: ``model_kwargs`` and
``model_state_dict`` of the encoder, ``params`` of the decoder, and ``discriminator``, which their code never saves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from perception.engine.convert import Conversion, State, count_numbers, require_complete, require_weight
from perception.engine.errors import UserError
from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.mpi import DirectMPIGO
from perception.radiance.released import released_field, released_kwargs
from projects.nerf_4k.decoder import SFTNet
from projects.nerf_4k.discriminator import UNetDiscriminatorSN

FIELDS = {"DirectMPIGO": DirectMPIGO, "DirectVoxGO": DirectVoxGO}
RUN = {"step", "pipeline", "run"}
"""Entries of the checkpoint of a run."""
READ = {"global_step", "model_kwargs", "model_state_dict", "discriminator"}
"""Entries of the authors' files that are looked at, besides the one that holds a decoder."""
DECODER, DISCRIMINATOR = "CondNet.0.weight", "conv1.weight_orig"
"""Weights that tell what a file without entries is of."""
TRUNK = r"conv_first|body\.\d+\.rdb\d\.conv\d|conv_body|conv_up1|conv_up2|conv_hr|conv_last"
"""The layers that the decoder shares with ESRGAN's generator, by the same names."""


class Parts(NamedTuple):
    """The networks that a file holds."""

    encoder: DirectMPIGO | DirectVoxGO | None = None
    decoder: SFTNet | None = None
    discriminator: UNetDiscriminatorSN | None = None
    step: int = 0  # of the training that made them


def read_parts(checkpoint: Mapping[str, Any]) -> Parts:
    """The networks of a file of the authors or of ours.

    Args:
        checkpoint: what :func:`perception.engine.checkpoint.load_checkpoint_file` read.

    Raises:
        UserError: it holds none of them, or one that is not complete.
    """
    held = [checkpoint.get(name) for name in Parts._fields[:3]]
    own = any(isinstance(part, Mapping) and "settings" in part for part in held)
    return _read_ours(checkpoint) if own or checkpoint.keys() >= RUN else _read_authors(checkpoint)


def to_perception(checkpoint: Mapping[str, Any]) -> Conversion:
    """A file of the authors as one of ours. Adam's moments are left out: they are kept by number, not by name."""
    return _converted(_read_authors(checkpoint), ours, _not_read(checkpoint))


def to_authors(checkpoint: Mapping[str, Any]) -> Conversion:
    """A file of ours as one that the authors' loaders read."""
    return _converted(_read_ours(checkpoint), authors, [])


def ours(parts: Parts) -> dict[str, Any]:
    """The content of a file of ours."""
    content: dict[str, Any] = {"meta": {"system": "nerf_4k", "step": parts.step}}
    for name, network in _networks(parts).items():
        content[name] = {"settings": network.settings(), "state_dict": dict(network.state_dict())}
    if parts.encoder is not None:
        content["encoder"]["type"] = type(parts.encoder).__name__
    return content


def authors(parts: Parts) -> dict[str, Any]:
    """The content of a file for the authors' code."""
    content: dict[str, Any] = {"global_step": parts.step}
    if parts.encoder is not None:
        content["model_kwargs"] = released_kwargs(parts.encoder)
        content["model_state_dict"] = dict(parts.encoder.state_dict())
    if parts.decoder is not None:
        content["params"] = dict(parts.decoder.state_dict())
    if parts.discriminator is not None:
        content["discriminator"] = dict(parts.discriminator.state_dict())
    return content


# Real-ESRNet


def start_trunk(decoder: SFTNet, checkpoint: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Give the decoder the weights of a Real-ESRNet (or ESRGAN) generator where both have the layer.

    Of a generator with more blocks the first ones are taken. The transforms and the network of the condition, which
    such a generator lacks, stay as they are.

    Args:
        decoder: its weights are replaced.
        checkpoint: of the generator, with ``params_ema``, ``params`` or bare.

    Returns:
        Names of the weights that were taken, and of those that were left.

    Raises:
        UserError: it is not a generator of that kind, or one of other sizes.
    """
    weights = _bare(checkpoint)
    own = decoder.state_dict()
    wanted = [name for name in own if re.fullmatch(rf"({TRUNK})\.(weight|bias)", name)]
    require_complete(weights, {name: tuple(own[name].shape) for name in wanted}, "Real-ESRNet")
    decoder.load_state_dict(own | {name: weights[name] for name in wanted})
    return wanted, [name for name in own if name not in set(wanted)]


# Reading


def _read_authors(checkpoint: Mapping[str, Any]) -> Parts:
    encoder = None
    if {"model_kwargs", "model_state_dict"} <= checkpoint.keys():
        encoder = _field(checkpoint["model_kwargs"], checkpoint["model_state_dict"])
    decoder = discriminator = None
    weights = _bare(checkpoint)
    judge = _stripped(checkpoint.get("discriminator", weights))
    if DECODER in weights:
        decoder = _network(weights, _decoder_settings, SFTNet, "4K-NeRF decoder")
    if DISCRIMINATOR in judge:
        discriminator = _network(judge, _discriminator_settings, UNetDiscriminatorSN, "4K-NeRF discriminator")
    return _some(Parts(encoder, decoder, discriminator, int(checkpoint.get("global_step", 0))))


def _read_ours(checkpoint: Mapping[str, Any]) -> Parts:
    if checkpoint.keys() >= RUN:
        return _read_run(checkpoint)
    found = {name: checkpoint.get(name) for name in Parts._fields[:3]}
    encoder = decoder = discriminator = None
    try:
        if found["encoder"] is not None:
            encoder = _own_field(**found["encoder"])
        if found["decoder"] is not None:
            decoder = SFTNet(**found["decoder"]["settings"])
            decoder.load_state_dict(found["decoder"]["state_dict"])
        if found["discriminator"] is not None:
            discriminator = UNetDiscriminatorSN(**found["discriminator"]["settings"])
            discriminator.load_state_dict(found["discriminator"]["state_dict"])
        step = int(checkpoint.get("meta", {}).get("step", 0))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise UserError(f"this file is damaged or of another version: {' '.join(str(error).split())}") from None
    return _some(Parts(encoder, decoder, discriminator, step))


def _read_run(checkpoint: Mapping[str, Any]) -> Parts:
    state = {
        name.removeprefix("_model."): value
        for name, value in checkpoint["pipeline"].items()
        if name.startswith("_model.") and isinstance(value, Tensor)
    }
    options = {name.removeprefix("pipeline.model."): value for name, value in checkpoint["run"]["settings"].items()}
    if "decoder.num_feat" not in options:
        raise UserError(f"this is a checkpoint of the method {checkpoint['run']['method']}, not of 4K-NeRF")
    parts = {name: _below(state, name) for name in ("field", "decoder", "discriminator")}
    encoder = _run_field(parts["field"], int(state["num_voxels"]), options)
    plan = [name for name, _ in checkpoint["run"]["plan"]]
    if plan[int(state["stage"])] != "joint":  # the networks behind the field are as they were made
        return Parts(encoder, step=checkpoint["step"])
    decoder = _network(parts["decoder"], _decoder_settings, SFTNet, "4K-NeRF decoder")
    judge = parts["discriminator"] or None
    if judge is not None:
        judge = _network(judge, _discriminator_settings, UNetDiscriminatorSN, "4K-NeRF discriminator")
    return Parts(encoder, decoder, judge, checkpoint["step"])


def _below(state: State, name: str) -> State:
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def _run_field(state: State, num_voxels: int, options: Mapping[str, Any]) -> DirectMPIGO | DirectVoxGO:
    """The field of a run, whose options say what its tensors do not."""
    if "act_shift.grid" in state:
        own = {name.removeprefix("encoder."): value for name, value in options.items() if name.startswith("encoder.")}
        if own["fast_color_thres"] is None:
            own["fast_color_thres"] = options["stepsize"] / own["mpi_depth"] / 5
        return _field({**own, "num_voxels": num_voxels, **_box(state)}, state)
    stage = "fine" if "rgbnet.0.weight" in state else "coarse"
    own = {name.removeprefix(f"{stage}."): value for name, value in options.items() if name.startswith(f"{stage}.")}
    if stage == "coarse":
        own = {**own, "rgbnet_dim": 0}
    return _field({**own, "num_voxels_base": own["num_voxels"], "num_voxels": num_voxels, **_box(state)}, state)


def _box(state: State) -> dict[str, list[float]]:
    return {name: state[name].tolist() for name in ("xyz_min", "xyz_max")}


def _some(parts: Parts) -> Parts:
    if not _networks(parts):
        raise UserError(
            "this file holds neither an encoder (model_kwargs and model_state_dict) nor the weights of a decoder or a "
            "discriminator of 4K-NeRF"
        )
    return parts


def _field(kwargs: Mapping[str, Any], state: Mapping[str, Tensor]) -> DirectMPIGO | DirectVoxGO:
    try:
        return released_field(kwargs, _stripped(state))
    except ValueError as error:
        raise UserError(f"this file does not hold an encoder of 4K-NeRF: {error}") from None


def _own_field(type: str, settings: dict[str, Any], state_dict: State) -> DirectMPIGO | DirectVoxGO:
    field = FIELDS[type](state_dict["xyz_min"], state_dict["xyz_max"], **settings)
    field.set_mask(state_dict["mask_cache.mask"])
    field.load_state_dict(state_dict)
    return field


def _network(weights: State, read_settings: Callable, make: Callable, name: str) -> Any:
    try:
        network = make(**read_settings(weights))
    except ValueError as error:
        raise UserError(f"this file does not hold a {name}: {error}") from None
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    require_complete(weights, shapes, name)
    left = [key for key in weights if key not in shapes]
    if left:
        raise UserError(f"this file holds more than a {name}: {', '.join(left[:3])} of {len(left)} weights")
    network.load_state_dict(weights)
    return network


def _decoder_settings(weights: State) -> dict[str, int | bool]:
    first = require_weight(weights, "conv_first.weight", "4K-NeRF decoder")
    growth = require_weight(weights, "body.0.rdb1.conv1.weight", "4K-NeRF decoder")
    return {
        "n_in_colors": first.shape[1],
        "scale": 4 if "conv_up2.weight" in weights else 2 if "conv_up1.weight" in weights else 1,
        "num_feat": first.shape[0],
        "num_block": count_numbers(weights, r"body\.(\d+)\..+"),
        "num_grow_ch": growth.shape[0],
        "num_cond": weights["CondNet.0.weight"].shape[1],
        "dswise": first.shape[-1] == 1,
    }


def _discriminator_settings(weights: State) -> dict[str, int]:
    first = require_weight(weights, "conv0.weight", "4K-NeRF discriminator")
    return {"num_in_ch": first.shape[1], "num_feat": first.shape[0]}


def _bare(checkpoint: Mapping[str, Any]) -> State:
    """The weights of a file of BasicSR's: averaged ones before others, or those that it holds itself."""
    name = _held_in(checkpoint)
    return _stripped(checkpoint if name is None else checkpoint[name])


def _held_in(checkpoint: Mapping[str, Any]) -> str | None:
    """The entry of a file of BasicSR's whose weights are taken."""
    return next((name for name in ("params_ema", "params") if isinstance(checkpoint.get(name), Mapping)), None)


def _not_read(checkpoint: Mapping[str, Any]) -> list[str]:
    """Entries of a file of the authors that :func:`_read_authors` does not look at."""
    name, weights = _held_in(checkpoint), _stripped(checkpoint)
    bare = name is None and (DECODER in weights or DISCRIMINATOR in weights)
    left = [key for key in checkpoint if key not in READ and key != name]
    return [key for key in left if not (bare and isinstance(checkpoint[key], Tensor))]


def _stripped(state: Mapping[str, Any]) -> State:
    return {name.removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}


def _networks(parts: Parts) -> dict[str, nn.Module]:
    return {name: network for name, network in zip(Parts._fields, parts[:3]) if network is not None}


def _converted(parts: Parts, write: Callable[[Parts], dict[str, Any]], unmatched: list[str]) -> Conversion:
    networks = _networks(parts)
    description = " and ".join(f"{type(network).__name__} {name}" for name, network in networks.items())
    count = sum(len(network.state_dict()) for network in networks.values())
    return Conversion(write(parts), unmatched, num_weights=count, description=description)
