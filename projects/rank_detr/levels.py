"""Feature maps of several levels as one sequence of tokens: positions, padding, reference points and proposals.

Plain torch. Notation: B batch, S tokens over all levels, C channels, V levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perception.layers.position_encoding import sine_position_encoding


@dataclass
class FlatLevels:
    """All levels, row by row and from fine to coarse.

    Attributes:
        tokens: (B, S, C).
        position: (B, S, C), sine encoding plus the embedding of the level.
        mask: (B, S) bool, True where the token is padding. All False where nothing is.
        spatial_shapes: (V, 2) int64, height and width of every level. On the CPU: sizes are read by Python, and a
            device tensor would stall it.
        valid_ratios: (B, V, 2), see :func:`valid_ratio`.
    """

    tokens: Tensor
    position: Tensor
    mask: Tensor
    spatial_shapes: Tensor
    valid_ratios: Tensor


def flatten_levels(feats: list[Tensor], masks: list[Tensor], level_embed: Tensor) -> FlatLevels:
    """Joins the levels.

    Args:
        feats: V maps (B, C, H_v, W_v).
        masks: V masks (B, H_v, W_v) bool, True where the token is padding.
        level_embed: (V, C).
    """
    channels = level_embed.shape[1]
    tokens = torch.cat([feat.flatten(2).transpose(1, 2) for feat in feats], 1)
    position = torch.cat(
        [
            sine_position_encoding(mask, channels // 2).flatten(2).transpose(1, 2).to(tokens.dtype) + embed
            for mask, embed in zip(masks, level_embed)
        ],
        1,
    )
    return FlatLevels(
        tokens=tokens,
        position=position,
        mask=torch.cat([mask.flatten(1) for mask in masks], 1),
        spatial_shapes=torch.tensor([feat.shape[-2:] for feat in feats], dtype=torch.int64),
        valid_ratios=torch.stack([valid_ratio(mask) for mask in masks], 1),
    )


def valid_ratio(mask: Tensor) -> Tensor:
    """Share of each axis that is not padding: mask (B, H, W) bool -> (B, 2) as x, y."""
    height, width = mask.shape[1:]
    valid_h = (~mask[:, :, 0]).sum(1).float() / height
    valid_w = (~mask[:, 0, :]).sum(1).float() / width
    return torch.stack([valid_w, valid_h], -1)


def _pixel_centres(height: int, width: int, device: torch.device) -> Tensor:
    """(height * width, 2) centres x, y in tokens."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=device) + 0.5,
        torch.arange(width, dtype=torch.float32, device=device) + 0.5,
        indexing="ij",
    )
    return torch.stack([x, y], -1).flatten(0, 1)


def encoder_reference_points(spatial_shapes: Tensor, valid_ratios: Tensor) -> Tensor:
    """Pixel centres of every token, expressed in every level.

    Args:
        spatial_shapes: (V, 2) height, width.
        valid_ratios: (B, V, 2) x, y.

    Returns:
        (B, S, V, 2).
    """
    centres = []
    for level, (height, width) in enumerate(spatial_shapes.tolist()):
        size = torch.tensor([width, height], device=valid_ratios.device)
        centre = _pixel_centres(height, width, valid_ratios.device)
        centres.append(centre[None] / (valid_ratios[:, None, level] * size))
    return torch.cat(centres, 1)[:, :, None] * valid_ratios[:, None]


def encoder_proposals(memory: Tensor, mask: Tensor, spatial_shapes: Tensor) -> tuple[Tensor, Tensor]:
    """One proposal per token, centred on it, 5 % of the image wide on the finest level and doubling per level.

    Args:
        memory: (B, S, C) encoder output.
        mask: (B, S) bool, True where the token is padding.
        spatial_shapes: (V, 2) height, width.

    Returns:
        memory with unusable tokens set to zero (B, S, C), proposal logits cx, cy, w, h (B, S, 4). A token is unusable
        when it is padding or a coordinate of its proposal leaves (0.01, 0.99); its logits are +inf.
    """
    proposals = []
    for level, (level_mask, (height, width)) in enumerate(_split_levels(mask, spatial_shapes)):
        level_mask = level_mask.view(-1, height, width)
        valid = torch.stack([(~level_mask[:, 0, :]).sum(1), (~level_mask[:, :, 0]).sum(1)], -1)  # B, 2 as w, h
        centre = _pixel_centres(height, width, memory.device)[None] / valid[:, None]
        size = torch.full_like(centre, 0.05 * 2.0**level)
        proposals.append(torch.cat([centre, size], -1))
    proposals = torch.cat(proposals, 1)
    unusable = ~((proposals > 0.01) & (proposals < 0.99)).all(-1, keepdim=True) | mask[..., None]
    logits = torch.log(proposals / (1 - proposals)).masked_fill(unusable, torch.inf)
    return memory.masked_fill(unusable, 0.0), logits


def _split_levels(flat: Tensor, spatial_shapes: Tensor) -> list[tuple[Tensor, tuple[int, int]]]:
    """(B, S) -> per level its (B, H * W) part and (H, W)."""
    shapes = [tuple(shape) for shape in spatial_shapes.tolist()]
    return list(zip(flat.split([h * w for h, w in shapes], 1), shapes))
