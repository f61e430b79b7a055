"""Open3DSOT's checkpoints of P2B and M2-Track to ours and back, and starts of SiamCUT and MoCUT from them.

Names below the network's are the same in both; Open3DSOT's are Lightning's files, which also hold the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perception.engine.checkpoint import state_dict_of
from perception.engine.convert import Conversion, Rename, State, count_numbers, rename, require_complete, require_weight
from perception.engine.errors import UserError

from .motion import MotionNetwork, SegPointNet
from .pointnet2 import PointNet2SSG
from .siamese import SiameseNetwork

PREFIX = "network."
"""Of the weights in our checkpoints, whose models hold the network."""
RULES = [Rename("{rest}", PREFIX + "{rest}")]
_LIGHTNING = "1.3.8"
"""Version of PyTorch Lightning of the files that are written: the one that Open3DSOT asks for."""
_LAYER = r"backbone\.SA_modules\.{}\.mlps\.0\.layer(\d+)\.conv\.weight"


def to_perception(checkpoint: Mapping[str, Any]) -> Conversion:
    """A checkpoint of Open3DSOT to ours; its settings are kept in ``meta``.

    Raises:
        UserError: it is neither P2B nor M2-Track.
    """
    state, expected, description = _checked(state_dict_of(checkpoint))
    renamed = rename({key: state[key] for key in expected}, RULES, to="ours")
    meta: dict[str, Any] = {"converted_from": "Open3DSOT"}
    if settings := _plain(checkpoint.get("hyper_parameters")):
        meta["hyper_parameters"] = settings
    unmatched = [key for key in state if key not in expected]
    return Conversion({"meta": meta, "state_dict": renamed.state}, unmatched, len(renamed.state), description)


def to_authors(checkpoint: Mapping[str, Any]) -> Conversion:
    """Our checkpoint of P2B or M2-Track to one that Open3DSOT's ``load_from_checkpoint`` takes.

    Raises:
        UserError: it holds another model, such as SiamCUT, for which Open3DSOT has no place.
    """
    ours = {key: value for key, value in state_dict_of(checkpoint).items() if key.startswith(PREFIX)}
    state = rename(ours, RULES, to="authors").state
    if any(".stages." in key for key in state):
        raise UserError("this is SiamCUT or MoCUT: Open3DSOT has P2B and M2-Track only")
    state, _, description = _checked(state)
    settings = _plain(checkpoint.get("meta", {}).get("hyper_parameters")) or {}
    content = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": _LIGHTNING,
        "state_dict": state,
        "hyper_parameters": settings,
    }
    return Conversion(content, [], len(state), description)


def to_start(checkpoint: Mapping[str, Any]) -> Conversion:
    """What SiamCUT can begin with of P2B, and MoCUT of M2-Track, for ``load_from``; of Open3DSOT's layout or ours.

    AdaFormer's set abstractions take P2B's, with zeros for the channels that P2B does not see; all that comes after the
    backbone, or after M2-Track's segmentation, is taken as it is.

    Raises:
        UserError: the file holds neither.
    """
    saved = state_dict_of(checkpoint)
    state, expected, description = _checked({key.removeprefix(PREFIX): value for key, value in saved.items()})
    start, left = {}, []
    rules = [Rename("backbone.SA_modules.{i}.mlps.0.{rest}", PREFIX + "backbone.stages.{i}.sa.{rest}"), *RULES]
    for key, value in rename({key: state[key] for key in expected}, rules, to="ours").state.items():
        if key.startswith(f"{PREFIX}seg_pointnet."):
            left.append(key.removeprefix(PREFIX))
        else:
            start[key] = _with_size(value) if key.endswith("stages.0.sa.layer0.conv.weight") else value
    name = "SiamCUT" if "conv_final.weight" in expected else "MoCUT"
    return Conversion(
        {"meta": {"converted_from": description}, "state_dict": start}, left, len(start), f"start of {name}"
    )


def _with_size(weight: Tensor) -> Tensor:
    """A layer (C, 3, 1, 1) on coordinates, which also takes the logarithms of three sizes."""
    return torch.cat([weight, torch.zeros_like(weight)], 1) if weight.shape[1] == 3 else weight


def _checked(state: State) -> tuple[State, dict[str, tuple[int, ...]], str]:
    """Complete weights, their shapes and the network's name. Numbers of batches seen, which PyTorch before 0.4.1 did
    not save and nothing here reads, are 0 where they are missing.

    Raises:
        UserError: another weight is missing or has another shape.
    """
    expected, description = _expected(state)
    counters = {key: torch.tensor(0) for key in expected if key.endswith(".num_batches_tracked") and key not in state}
    state = {**state, **counters}
    require_complete(state, expected, description)
    return state, expected, description


def _expected(state: State) -> tuple[dict[str, tuple[int, ...]], str]:
    """Shapes of a network of the sizes that the weights show, and its name."""
    if any(key.startswith("mlp_bc.") for key in state):
        raise UserError("this is BAT, which is not here: P2B and M2-Track are")
    if "conv_final.weight" in state:
        return _shapes(_siamese, state), "P2B"
    if "seg_pointnet.fc.weight" in state:
        return _shapes(_motion, state), "M2-Track"
    raise UserError(
        "this file holds neither P2B nor M2-Track: it has no weight conv_final.weight or seg_pointnet.fc.weight"
    )


def _shapes(build: Any, state: State) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network: nn.Module = build(state)
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def _outputs(state: State, template: str, count: int, model: str) -> tuple[int, ...]:
    """Output channels of numbered layers."""
    return tuple(require_weight(state, template.format(number), model).shape[0] for number in range(count))


def _siamese(state: State) -> SiameseNetwork:
    dims, levels = [], count_numbers(state, _LAYER.format(r"(\d+)").replace(r"layer(\d+)", r"layer\d+"))
    for level in range(levels):
        layers = f"backbone.SA_modules.{level}.mlps.0.layer{{}}.conv.weight"
        dims.append(_outputs(state, layers, count_numbers(state, _LAYER.format(level)), "P2B"))
    first = require_weight(state, "backbone.SA_modules.0.mlps.0.layer0.conv.weight", "P2B")
    backbone = PointNet2SSG(first.shape[1] - 3, dims, radii=[0.3] * levels)
    votes = require_weight(state, "rpn.FC_proposal.0.conv.weight", "P2B").shape[0]
    compared = state.get("xcorr.mlp.layer0.conv.weight")
    hidden = None if compared is None else compared.shape[0]
    return SiameseNetwork(backbone, state["conv_final.weight"].shape[0], votes, hidden_channels=hidden)


def _motion(state: State) -> MotionNetwork:
    channels = require_weight(state, "seg_pointnet.seq_per_point.0.0.weight", "M2-Track").shape[1]
    outputs = state["seg_pointnet.fc.weight"].shape[0]
    widths: dict[str, Any] = {"in_channels": channels, "out_channels": outputs}
    for argument, name in (("per_point", "seq_per_point"), ("decoder", "seq_per_point2")):
        layers = count_numbers(state, rf"seg_pointnet\.{name}\.(\d+)\.0\.weight")
        widths[argument] = _outputs(state, f"seg_pointnet.{name}.{{}}.0.weight", layers, "M2-Track")
    parts = {key.split(".", 1)[0] for key in state}
    return MotionNetwork(
        SegPointNet(**widths),
        box_aware=outputs > 2,
        motion_state="motion_state_mlp" in parts,
        second_stage="mini_pointnet2" in parts,
        previous_refinement="final_mlp" in parts,
    )


def _plain(settings: Any) -> Any:
    """Settings as plain dictionaries, lists and values; what else there is becomes words."""
    if isinstance(settings, Mapping):
        return {str(key): _plain(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [_plain(value) for value in settings]
    return settings if settings is None or isinstance(settings, bool | int | float | str) else str(settings)
