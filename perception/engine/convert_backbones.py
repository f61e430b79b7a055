"""Names of backbones in detectron2 and detrex, for the converters of systems that were published there."""

from __future__ import annotations

from torch import Tensor

from .convert import Rename


def resnet_rules() -> list[Rename]:
    """detectron2's ResNet to mmdet's."""
    rules = [
        Rename("backbone.stem.conv1.norm.{rest}", "backbone.bn1.{rest}"),
        Rename("backbone.stem.conv1.{rest}", "backbone.conv1.{rest}"),
    ]
    for stage in range(2, 6):
        theirs, ours = f"backbone.res{stage}.{{i}}", f"backbone.layer{stage - 1}.{{i}}"
        for conv in (1, 2, 3):
            rules.append(Rename(f"{theirs}.conv{conv}.norm.{{rest}}", f"{ours}.bn{conv}.{{rest}}"))
            rules.append(Rename(f"{theirs}.conv{conv}.{{rest}}", f"{ours}.conv{conv}.{{rest}}"))
        rules.append(Rename(f"{theirs}.shortcut.norm.{{rest}}", f"{ours}.downsample.1.{{rest}}"))
        rules.append(Rename(f"{theirs}.shortcut.{{rest}}", f"{ours}.downsample.0.{{rest}}"))
    return rules


def swin_rules() -> list[Rename]:
    """The Swin authors' transformer to mmdet's."""
    theirs, ours = "backbone.layers.{i}.blocks.{j}", "backbone.stages.{i}.blocks.{j}"
    merge = (_merge_order, _split_order)
    return [
        Rename("backbone.patch_embed.proj.{rest}", "backbone.patch_embed.projection.{rest}"),
        Rename("backbone.patch_embed.norm.{rest}", "backbone.patch_embed.norm.{rest}"),
        Rename(f"{theirs}.attn.{{rest}}", f"{ours}.attn.w_msa.{{rest}}"),
        Rename(f"{theirs}.mlp.fc1.{{rest}}", f"{ours}.ffn.layers.0.0.{{rest}}"),
        Rename(f"{theirs}.mlp.fc2.{{rest}}", f"{ours}.ffn.layers.1.{{rest}}"),
        Rename(f"{theirs}.{{rest}}", f"{ours}.{{rest}}"),
        Rename("backbone.layers.{i}.downsample.{rest}", "backbone.stages.{i}.downsample.{rest}", *merge),
        Rename("backbone.norm{i}.{rest}", "backbone.norm{i}.{rest}"),
    ]


def _merge_order(value: Tensor) -> Tensor:
    """Swin patch merging: four neighbours stacked one after the other -> interleaved per channel, as unfold does."""
    parts = value.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :]
    return parts.transpose(-1, -2).flatten(-2).contiguous()


def _split_order(value: Tensor) -> Tensor:
    """The inverse of :func:`_merge_order`."""
    parts = value.unflatten(-1, (-1, 4)).transpose(-1, -2)[..., [0, 2, 1, 3], :]
    return parts.flatten(-2).contiguous()
