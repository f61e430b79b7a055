"""Published UnifyGeo checkpoints to ours and back; and ImageNet weights of ConvNeXt-Tiny as a start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from perception.engine.checkpoint import state_dict_of
from perception.engine.convert import Conversion, Rename, State, rename, require_complete
from perception.engine.errors import UserError

from .network import VIEWS, UnifyGeoNet

MODEL = "UnifyGeo"
PREFIX = "network."
"""Of the weights in our checkpoints, whose model holds the network beside its data preprocessors."""


def _column(scale: Tensor) -> Tensor:
    """timm keeps a block's scale as (C,), torchvision as (C, 1, 1)."""
    return scale.view(-1, 1, 1)


def _block_rules(theirs: str, ours: str) -> list[Rename]:
    """timm's ConvNeXt block to torchvision's."""
    layers = {"conv_dw": 0, "norm": 2, "mlp.fc1": 3, "mlp.fc2": 5}
    rules = [Rename(f"{theirs}.{name}.{{rest}}", f"{ours}.block.{place}.{{rest}}") for name, place in layers.items()]
    return [Rename(f"{theirs}.gamma", f"{ours}.layer_scale", _column, torch.flatten), *rules]


def encoder_rules(theirs: str, ours: str) -> list[Rename]:
    """timm's ``features_only`` ConvNeXt (stages 0 to 2) to :class:`ConvNeXtEncoder`."""
    rules = _block_rules(f"{theirs}.stages_{{i}}.blocks.{{j}}", f"{ours}.stages.{{i}}.{{j}}")
    for i in range(2):
        rules.append(Rename(f"{theirs}.stem_{i}.{{rest}}", f"{ours}.stem.{i}.{{rest}}"))
        rules.append(Rename(f"{theirs}.stages_{i + 1}.downsample.{{rest}}", f"{ours}.downsamples.{i}.{{rest}}"))
    rules.append(Rename(f"{theirs}.norm{{i}}.{{rest}}", f"{ours}.norms.{{i}}.{{rest}}"))
    return rules


def head_rules(theirs: str, ours: str) -> list[Rename]:
    """The released ``FeatureDecoder`` without its aggregator to :class:`FeatureHead`."""
    return [
        Rename(f"{theirs}.model.downsample.{{rest}}", f"{ours}.downsample.{{rest}}"),
        *_block_rules(f"{theirs}.model.conv", f"{ours}.block"),
    ]


def _aggregator_rules(theirs: str = "", ours: str = "") -> list[Rename]:
    return [
        Rename(f"{theirs}aggregator.block.{{rest}}", f"{ours}attention.{{rest}}"),
        Rename(f"{theirs}aggregator.gem.p", f"{ours}pool.p"),
        Rename(f"{theirs}agg_post_norm.{{rest}}", f"{ours}norm.{{rest}}"),
    ]


def _decoder_rules(theirs: str = "", ours: str = "") -> list[Rename]:
    rules = []
    for level in range(4):
        number = level + 1
        for name, our_name in (
            (f"grd_feature_to_descriptor{number}.conv1", f"descriptors.{level}.project"),
            (f"grd_feature_to_descriptor{number}.conv2", f"descriptors.{level}.pool_rows"),
            (f"grd_descriptor_norm{number}", f"descriptor_norms.{level}"),
            (f"sat_matching_block_norm{number}", f"map_norms.{level}"),
            # They count convolutions from the coarsest, 4, to the heat map's, 1.
            (f"deconv{4 - level}", f"upsamples.{level}" if level < 3 else "head_upsample"),
            (f"conv{4 - level}", f"fusions.{level}" if level < 3 else "head"),
        ):
            rules.append(Rename(f"{theirs}{name}.{{rest}}", f"{ours}{our_name}.{{rest}}"))
    return rules


AGGREGATOR_RULES = _aggregator_rules()
DECODER_RULES = _decoder_rules()


def _network_rules() -> list[Rename]:
    rules = []
    for theirs, ours in (("grd", "ground"), ("sat", "satellite")):
        # Norms of the outputs are not timm's, and so are not part of its model. The published weights have none.
        norms = f"{PREFIX}{ours}.encoder.norms.{{i}}.{{rest}}"
        rules.append(Rename(f"{theirs}_encoder.norm{{i}}.{{rest}}", norms))
        rules += encoder_rules(f"{theirs}_encoder.model", f"{PREFIX}{ours}.encoder")
        for task in ("global", "local"):
            rules += head_rules(f"{theirs}_{task}_feats_decoder", f"{PREFIX}{ours}.{task}_head")
        rules += _aggregator_rules(f"{theirs}_global_feats_decoder.", f"{PREFIX}{ours}.aggregator.")
    rules += _decoder_rules("pyramid_decoder.", f"{PREFIX}decoder.")
    rules.append(Rename("logit_scale", f"{PREFIX}logit_scale"))
    rules.append(Rename("logit_scale_rerank", f"{PREFIX}rerank_logit_scale"))
    return rules


RULES = _network_rules()


def to_perception(checkpoint: Mapping[str, Any]) -> Conversion:
    """Authors' checkpoint to ours; ImageNet weights of ConvNeXt-Tiny become a start for training.

    The ImageNet weights may be timm's (``convnext_tiny.fb_in22k_ft_in1k_384``, also in the layout of its authors) or
    torchvision's.

    Raises:
        UserError: the file holds none of these.
    """
    state = state_dict_of(checkpoint)
    if "model" in checkpoint and isinstance(checkpoint["model"], Mapping):
        state = state_dict_of(checkpoint["model"])
    if not any(key.startswith("grd_encoder.") for key in state):
        return _start(state)
    renamed = rename(state, RULES, to="ours")
    require_complete(renamed.state, _expected(renamed.state), MODEL)
    meta = {"converted_from": "UnifyGeo"}
    return Conversion(
        {"meta": meta, "state_dict": renamed.state}, renamed.unmatched, len(renamed.state), _describe(renamed.state)
    )


def to_authors(checkpoint: Mapping[str, Any]) -> Conversion:
    """Our checkpoint to the authors' bare state dict.

    Raises:
        UserError: the file does not hold this model with the published sharing of weights.
    """
    ours = state_dict_of(checkpoint)
    require_complete(ours, _expected(ours), MODEL)
    renamed = rename({k: v for k, v in ours.items() if k.startswith(PREFIX)}, RULES, to="authors")
    if renamed.unmatched:
        raise UserError(
            f"the authors' layout has no place for {len(renamed.unmatched)} weights of this model, such as "
            f"{renamed.unmatched[0]}"
        )
    return Conversion(dict(renamed.state), [], len(renamed.state), _describe(ours))


def _expected(state: State) -> dict[str, tuple[int, ...]]:
    """Shapes of a model of the sizes that the weights themselves show."""
    view = f"{PREFIX}satellite."
    try:
        channels = [state[f"{view}encoder.stages.{i}.0.block.0.weight"].shape[0] for i in range(3)]
        width = state[f"{view}global_head.downsample.1.weight"].shape[0]
        decoder = f"{PREFIX}decoder."
        kept = [state[f"{decoder}descriptors.{i}.project.weight"].shape[0] for i in range(4)]
        scored = [*(f"{decoder}upsamples.{i}.weight" for i in range(3)), f"{decoder}head_upsample.0.weight"]
        depths = [state[key].shape[0] - 1 for key in scored]
        rows = state[f"{decoder}descriptors.0.pool_rows.weight"].shape[1]
        head = [state[f"{decoder}head_upsample.{i}.weight"].shape[1] for i in (0, 3)]
        last = state[f"{decoder}head.0.weight"].shape[0]
    except KeyError as error:
        raise UserError(f"this file does not hold a {MODEL} model: it has no weight {error.args[0]}") from None
    soa, norm = (f"{view}aggregator.attention.{name}" for name in ("v.weight", "f.1"))
    attention_norm = "BN" if f"{norm}.running_mean" in state else "LN" if f"{norm}.weight" in state else None
    blocks = [sum(f"{view}encoder.stages.{i}.{j}.layer_scale" in state for j in range(99)) for i in range(3)]
    try:
        with torch.device("meta"):
            network = UnifyGeoNet(
                view=dict(
                    encoder_channels=channels,
                    encoder_depths=blocks,
                    channels=width,
                    aggregator="soa_gem" if soa in state else "gem" if f"{view}aggregator.pool.p" in state else "avg",
                    reduction=width // state[soa].shape[1] if soa in state else 1,
                    descriptor_norm=f"{view}aggregator.norm.weight" in state,
                    output_norm=f"{view}encoder.norms.0.weight" in state,
                    attention_norm=attention_norm if soa in state else "LN",
                ),
                decoder=dict(
                    channels=depths,
                    ground_channels=kept,
                    ground_size=(rows, depths[0] // kept[0]),
                    ground_in_channels=width,
                    head_channels=head,
                    last_channels=last,
                    batch_norm=f"{decoder}head.3.weight" in state,
                    match_norm=f"{decoder}map_norms.0.weight" in state,
                ),
            )
    except ValueError as error:
        raise UserError(f"this file does not hold a {MODEL} model: {error}") from None
    return {PREFIX + key: tuple(value.shape) for key, value in network.state_dict().items()}


def _start(state: State) -> Conversion:
    """An ImageNet classifier's weights for both encoders, and its last stage's start for the four heads."""
    for layout in (_TIMM, _CONVNEXT, _TORCHVISION):
        renamed = rename(state, layout, to="ours")
        if any(key.startswith("encoder.") for key in renamed.state):
            break
    else:
        raise UserError(
            f"this file holds neither a {MODEL} model of the authors' layout nor a ConvNeXt; --to authors "
            "starts from ours"
        )
    start = {}
    for key, value in renamed.state.items():
        part, _, rest = key.partition(".")
        for view in VIEWS:
            for name in ("encoder",) if part == "encoder" else ("global_head", "local_head"):
                start[f"{PREFIX}{view}.{name}.{rest}"] = value
    with torch.device("meta"):
        network = UnifyGeoNet()
    expected = {
        key: tuple(value.shape)
        for key, value in network.state_dict(prefix=PREFIX).items()
        if key.split(".")[2:3] in (["encoder"], ["global_head"], ["local_head"])
    }
    require_complete(start, expected, "ConvNeXt-Tiny")
    description = "start for both encoders and the four heads, from a ConvNeXt-Tiny classifier"
    return Conversion({"state_dict": start}, renamed.unmatched, len(start), description)


def _describe(state: State) -> str:
    return "published sharing of weights" if f"{PREFIX}ground.local_head.block.layer_scale" in state else "shared heads"


def _flat_block(theirs: str, ours: str, names: tuple[str, str, str, str]) -> list[Rename]:
    rules = [Rename(f"{theirs}.{name}.{{rest}}", f"{ours}.block.{i}.{{rest}}") for name, i in zip(names, (0, 2, 3, 5))]
    return [Rename(f"{theirs}.gamma", f"{ours}.layer_scale", _column, torch.flatten), *rules]


_CONVNEXT_NAMES = ("dwconv", "norm", "pwconv1", "pwconv2")
_TIMM = [
    Rename("stem.{rest}", "encoder.stem.{rest}"),
    Rename("stages.1.downsample.{rest}", "encoder.downsamples.0.{rest}"),
    Rename("stages.2.downsample.{rest}", "encoder.downsamples.1.{rest}"),
    Rename("stages.3.downsample.{rest}", "head.downsample.{rest}"),
    *_block_rules("stages.3.blocks.0", "head.block"),
    *(rule for i in range(3) for rule in _block_rules(f"stages.{i}.blocks.{{j}}", f"encoder.stages.{i}.{{j}}")),
]
_CONVNEXT = [
    Rename("downsample_layers.0.{rest}", "encoder.stem.{rest}"),
    Rename("downsample_layers.1.{rest}", "encoder.downsamples.0.{rest}"),
    Rename("downsample_layers.2.{rest}", "encoder.downsamples.1.{rest}"),
    Rename("downsample_layers.3.{rest}", "head.downsample.{rest}"),
    *_flat_block("stages.3.0", "head.block", _CONVNEXT_NAMES),
    *(
        rule
        for i in range(3)
        for rule in _flat_block(f"stages.{i}.{{j}}", f"encoder.stages.{i}.{{j}}", _CONVNEXT_NAMES)
    ),
]
_TORCHVISION = [
    Rename("features.0.{rest}", "encoder.stem.{rest}"),
    Rename("features.2.{rest}", "encoder.downsamples.0.{rest}"),
    Rename("features.4.{rest}", "encoder.downsamples.1.{rest}"),
    Rename("features.6.{rest}", "head.downsample.{rest}"),
    Rename("features.7.0.{rest}", "head.block.{rest}"),
    *(Rename(f"features.{2 * i + 1}.{{j}}.{{rest}}", f"encoder.stages.{i}.{{j}}.{{rest}}") for i in range(3)),
]
