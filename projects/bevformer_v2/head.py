"""The detection head that looks from above: queries, transformer, and a class and a box for every object query."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from perception.geometry.bev import BevGrid
from perception.layers.inverse_sigmoid import inverse_sigmoid
from perception.layers.precision import at_least_float32

from .coder import Detections, best_boxes
from .decoder import REFERENCE_EPS
from .points import Rig
from .proposals import ProposalQueries, Proposals
from .transformer import BEVTransformer

CODE_SIZE = 10
CODE_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)
"""Of the box loss: velocity counts a fifth."""


@dataclass
class HeadOutput:
    """Predictions of every decoder layer.

    Attributes:
        logits: (L, B, groups * Q, K).
        codes: (L, B, groups * Q, 10), see :mod:`~projects.bevformer_v2.coder`.
        num_groups: of queries that are matched apart; 1 in evaluation.
        bev: (B, cells, C) of the current frame, before it is fused with others.
    """

    logits: Tensor
    codes: Tensor
    num_groups: int
    bev: Tensor


class LearnedPositions(nn.Module):
    """A learned vector for each column and each row of the grid."""

    def __init__(self, num_feats: int, rows: int, columns: int) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(rows, num_feats)
        self.col_embed = nn.Embedding(columns, num_feats)

    def forward(self) -> Tensor:
        """(rows * columns, 2 * num_feats), the column's first."""
        rows, columns = self.row_embed.weight, self.col_embed.weight
        size = (len(rows), len(columns), -1)
        return torch.cat([columns[None].expand(size), rows[:, None].expand(size)], -1).flatten(0, 1)


class BEVFormerHead(nn.Module):
    """Detects objects around the vehicle from feature maps of its cameras.

    Args:
        num_classes: K.
        embed_dims: C.
        bev_size: rows and columns of the grid that covers the detection range.
        pc_range: lowest and highest x, y, z of the detection range, metres, in the current LiDAR's frame.
        num_queries: Q, of a group.
        num_groups: of queries in training; the first alone is there in evaluation.
        code_weights: of the box loss.
        num_proposals: queries of each group that are made of the perspective head's boxes (two-stage variant); 0 is
            the published, one-stage model.
        transformer: further settings of :class:`BEVTransformer`.
        num_branch_layers: hidden layers of the branches that say class and box.

    Raises:
        ValueError: another number of code weights than of numbers in a code.
    """

    code_weights: Tensor

    def __init__(
        self,
        num_classes: int = 10,
        embed_dims: int = 256,
        bev_size: tuple[int, int] = (200, 200),
        pc_range: Sequence[float] = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0),
        num_queries: int = 900,
        num_groups: int = 1,
        code_weights: Sequence[float] = CODE_WEIGHTS,
        num_proposals: int = 0,
        transformer: dict | None = None,
        num_branch_layers: int = 2,
    ) -> None:
        super().__init__()
        if len(code_weights) != CODE_SIZE:
            raise ValueError(f"code_weights needs a number for each of a code's {CODE_SIZE}, got {len(code_weights)}")
        rows, columns = bev_size
        grid = BevGrid(tuple(pc_range[:2]), tuple(pc_range[3:5]), rows, columns)
        self.num_classes, self.num_queries, self.num_groups = num_classes, num_queries, num_groups
        self.pc_range = tuple(pc_range)
        self.transformer = BEVTransformer(grid, pc_range, embed_dims, **(transformer or {}))
        self.positional_encoding = LearnedPositions(embed_dims // 2, rows, columns)
        self.bev_embedding = nn.Embedding(rows * columns, embed_dims)
        self.query_embedding = nn.Embedding(num_queries * num_groups, 2 * embed_dims)  # position, then content
        classify = _class_branch(embed_dims, num_classes, num_branch_layers)
        regress = _box_branch(embed_dims, num_branch_layers)
        depth = len(self.transformer.decoder.layers)
        self.cls_branches = nn.ModuleList(copy.deepcopy(classify) for _ in range(depth))
        self.reg_branches = nn.ModuleList(copy.deepcopy(regress) for _ in range(depth))
        self.register_buffer("code_weights", torch.tensor(code_weights))
        # Last, so that a one-stage model starts from the same weights with or without it.
        self.proposal_queries = ProposalQueries(num_proposals, embed_dims, pc_range) if num_proposals else None

    def encode(
        self,
        feats: Sequence[Tensor],
        rig: Rig,
        bev_warp: Tensor | None = None,
        previous: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        """The bird's-eye view (B, cells, C) of one frame, see :meth:`BEVTransformer.encode`."""
        queries, position = self.bev_embedding.weight, self.positional_encoding()
        return self.transformer.encode(feats, rig, queries, position, bev_warp, previous, shift)

    def forward(
        self,
        feats: Sequence[Tensor],
        rig: Rig,
        history: Sequence[Tensor | None] = (),
        present: Tensor | None = None,
        bev_warp: Tensor | None = None,
        previous: Tensor | None = None,
        shift: Tensor | None = None,
        proposals: Proposals | None = None,
    ) -> HeadOutput:
        """
        Args:
            feats: maps (B, N, C, H_v, W_v) of the current frame, one per level.
            rig: its cameras.
            history: views of all frames, see :meth:`BEVTransformer.fuse`; models of one frame need none.
            present: (B, T) bool, which samples have which frame.
            bev_warp: (B, 2+, 2+), see :meth:`BEVTransformer.encode`.
            previous, shift: of the first BEVFormer, see :class:`~projects.bevformer_v2.encoder.BEVFormerEncoder`.
            proposals: of the two-stage variant.

        Raises:
            ValueError: proposals for a one-stage model, or none for a two-stage one.
        """
        if (proposals is None) is not (self.proposal_queries is None):
            raise ValueError("a two-stage head needs proposals, and a one-stage head takes none")
        bev = self.encode(feats, rig, bev_warp, previous, shift)
        view = self.transformer.fuse(bev, history, present)
        groups = self.num_groups if self.training else 1
        content, query_pos, reference = self._object_queries(len(bev), groups, proposals)
        hidden, references = self.transformer.decode(view, content, query_pos, reference, self.reg_branches, groups)
        logits = torch.stack([branch(x) for branch, x in zip(self.cls_branches, hidden)])
        codes = torch.stack([branch(x) for branch, x in zip(self.reg_branches, hidden)])
        return HeadOutput(logits, self._in_metres(at_least_float32(codes), references), groups, bev)

    def detect(
        self,
        output: HeadOutput,
        center_range: Sequence[float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0),
        max_boxes: int = 300,
    ) -> list[Detections]:
        """Boxes of each sample from the last layer's predictions."""
        if output.num_groups > 1:
            raise ValueError("detections come from a head in evaluation mode")
        pairs = zip(output.logits[-1], output.codes[-1])
        return [best_boxes(logits, codes, center_range, max_boxes) for logits, codes in pairs]

    def _object_queries(self, batch: int, groups: int, proposals: Proposals | None) -> tuple[Tensor, Tensor, Tensor]:
        """Content, position and reference (B, groups * Q, ...) of the decoder's queries."""
        position, content = self.query_embedding.weight[: groups * self.num_queries].chunk(2, -1)
        reference = at_least_float32(self.transformer.reference_points(position)).sigmoid()
        queries = tuple(part.expand(batch, -1, -1) for part in (content, position, reference))
        if self.proposal_queries is None or proposals is None:
            return queries
        return self.proposal_queries.append_to_groups(*queries, proposals, groups)

    def _in_metres(self, raw: Tensor, references: Tensor) -> Tensor:
        """Codes (L, B, Q, 10) from what the branches say about references (L, B, Q, 3)."""
        low, high = raw.new_tensor(self.pc_range).view(2, 3)
        places = (raw[..., [0, 1, 4]] + inverse_sigmoid(references, REFERENCE_EPS)).sigmoid() * (high - low) + low
        return torch.cat([places[..., :2], raw[..., 2:4], places[..., 2:], raw[..., 5:]], -1)


def _class_branch(embed_dims: int, num_classes: int, num_hidden: int) -> nn.Sequential:
    widths = [embed_dims] * num_hidden
    hidden = [(nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(inplace=True)) for width in widths]
    classify = nn.Linear(embed_dims, num_classes)
    nn.init.constant_(classify.bias, -math.log(99.0))  # a probability of 0.01
    return nn.Sequential(*chain(*hidden), classify)


def _box_branch(embed_dims: int, num_hidden: int) -> nn.Sequential:
    hidden = [(nn.Linear(embed_dims, embed_dims), nn.ReLU()) for _ in range(num_hidden)]
    return nn.Sequential(*chain(*hidden), nn.Linear(embed_dims, CODE_SIZE))
