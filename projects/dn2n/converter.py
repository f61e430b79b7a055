"""IBRNet's published checkpoints to ours and back.

All parameters have the authors' names. A file of ours holds ``state_dict`` with the prefixes ``feature_net.``,
``net_coarse.`` and ``net_fine.``, or is the checkpoint of a run, where they follow ``_model.renderer.``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from perception.engine.convert import Conversion, State, count_numbers, require_complete, require_weight
from perception.engine.errors import UserError
from projects.dn2n.aggregation import IBRNet
from projects.dn2n.features import ResUNet
from projects.dn2n.rendering import Renderer

NETWORKS = ("feature_net", "net_coarse", "net_fine")
LEFT_OUT = ("optimizer", "scheduler")
RUN_PREFIX = "_model.renderer."


def to_perception(checkpoint: Mapping[str, Any]) -> Conversion:
    """A file of IBRNet's (``model_XXXXXX.pth``) as one of ours.

    Raises:
        UserError: it is not one, or not complete.
    """
    weights = _authors_weights(checkpoint)
    unmatched = [key for key in checkpoint if key not in NETWORKS and key not in LEFT_OUT]
    return Conversion({"state_dict": weights, "meta": {"system": "dn2n"}}, unmatched, len(weights), _describe(weights))


def to_authors(checkpoint: Mapping[str, Any]) -> Conversion:
    """A file of ours, or the checkpoint of a run, as one that IBRNet's loader reads (``--no_load_opt``).

    Raises:
        UserError: it is neither, or not complete.
    """
    weights = network_weights(checkpoint)
    parts: dict[str, State] = {}
    for key, value in weights.items():
        network, _, name = key.partition(".")
        parts.setdefault(network, {})[name] = value
    return Conversion(parts, [], len(weights), _describe(weights))


def network_weights(checkpoint: Mapping[str, Any]) -> State:
    """The weights of all networks, by their names in a :class:`~projects.dn2n.rendering.Renderer`.

    Args:
        checkpoint: of IBRNet's authors, of ours, or of a run.

    Raises:
        UserError: it is none of these, or not complete.
    """
    if any(name in checkpoint for name in NETWORKS):
        return _authors_weights(checkpoint)
    if isinstance(checkpoint.get("pipeline"), Mapping):
        found = {
            key.removeprefix(RUN_PREFIX): value
            for key, value in checkpoint["pipeline"].items()
            if key.startswith(RUN_PREFIX)
        }
    else:
        found = dict(checkpoint.get("state_dict", {}))
    return _complete(found)


def renderer_of(weights: Mapping[str, Tensor], *, coarse_samples: int = 64, fine_samples: int = 64) -> Renderer:
    """The renderer that weights are of, with them; numbers of samples are in no file.

    Args:
        weights: see :func:`network_weights`.
        coarse_samples: of the coarse network.
        fine_samples: further ones of the fine network.
    """
    renderer = _empty(weights, coarse_samples, fine_samples)
    renderer.load_state_dict(dict(weights))
    return renderer


def _authors_weights(checkpoint: Mapping[str, Any]) -> State:
    held = [name for name in NETWORKS if isinstance(checkpoint.get(name), Mapping)]
    if "feature_net" not in held or "net_coarse" not in held:
        raise UserError("the file is no IBRNet checkpoint: it lacks feature_net or net_coarse")
    stripped = (
        (name, {key.removeprefix("module."): value for key, value in checkpoint[name].items()}) for name in held
    )
    return _complete({f"{name}.{key}": value for name, part in stripped for key, value in part.items()})


def _complete(weights: State) -> State:
    expected = {name: tuple(value.shape) for name, value in _empty(weights, 4, 4).state_dict().items()}
    require_complete(weights, expected, "IBRNet")
    extra = sorted(weights.keys() - expected.keys())
    if extra:
        raise UserError(f"the file holds {len(extra)} weights that IBRNet does not have, {extra[0]} first")
    return weights


def _empty(weights: Mapping[str, Tensor], coarse_samples: int, fine_samples: int) -> Renderer:
    """A renderer of the sizes that weights have."""
    stages = ("layer1", "layer2", "layer3")
    widths = [len(require_weight(weights, f"feature_net.{stage}.0.conv1.weight", "IBRNet")) for stage in stages]
    blocks = [count_numbers(weights, rf"feature_net\.{stage}\.(\d+)\..*") for stage in stages]
    channels = len(require_weight(weights, "net_coarse.ray_dir_fc.2.weight", "IBRNet")) - 3
    fine_channels = weights.get("net_fine.ray_dir_fc.2.weight")
    out = len(require_weight(weights, "feature_net.out_conv.weight", "IBRNet"))
    pooling = "net_coarse.s" in weights
    fine = None
    if fine_channels is not None:
        fine = IBRNet(len(fine_channels) - 3, coarse_samples + fine_samples, pooling)
    return Renderer(ResUNet(channels, out - channels, widths, blocks), IBRNet(channels, coarse_samples, pooling), fine)


def _describe(weights: Mapping[str, Tensor]) -> str:
    channels = len(weights["net_coarse.ray_dir_fc.2.weight"]) - 3
    fine = "coarse and fine" if any(key.startswith("net_fine.") for key in weights) else "coarse only"
    return f"IBRNet, {channels} feature channels, {fine}"
