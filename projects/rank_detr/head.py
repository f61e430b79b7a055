"""Prediction heads of Rank-DETR, with the rank-adaptive classification head (arXiv 2310.08854, section 3.2)."""

from __future__ import annotations

import copy
import math

from torch import Tensor, nn


class RankDetrHead(nn.Module):
    """Class and box branches of every decoder layer and of the encoder.

    Branch ``num_layers`` (the last) belongs to the encoder. ``rank_adaptive_classhead_emb[l]`` holds a learned bias for
    each rank position and class of decoder layer ``l``: p_i = sigmoid(t_i + s_i).

    Args:
        num_classes: K.
        embed_dims: C.
        num_layers: decoder layers L.
        num_queries: rows of the rank tables, one-to-one plus one-to-many queries.
        rank_adaptive_classhead: False leaves the rank tables out.
    """

    def __init__(
        self,
        num_classes: int,
        embed_dims: int = 256,
        num_layers: int = 6,
        num_queries: int = 1800,
        rank_adaptive_classhead: bool = True,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_layers = num_classes, num_layers
        classify = nn.Linear(embed_dims, num_classes)
        nn.init.constant_(classify.bias, -math.log((1 - 0.01) / 0.01))
        regress = nn.Sequential(
            nn.Linear(embed_dims, embed_dims),
            nn.ReLU(),
            nn.Linear(embed_dims, embed_dims),
            nn.ReLU(),
            nn.Linear(embed_dims, 4),
        )
        nn.init.zeros_(regress[-1].weight)
        nn.init.zeros_(regress[-1].bias)
        self.cls_branches = nn.ModuleList(copy.deepcopy(classify) for _ in range(num_layers + 1))
        self.reg_branches = nn.ModuleList(copy.deepcopy(regress) for _ in range(num_layers + 1))
        if rank_adaptive_classhead:
            tables = [nn.Embedding(num_queries, num_classes) for _ in range(num_layers)]
            for table in tables:
                nn.init.zeros_(table.weight)
            self.rank_adaptive_classhead_emb = nn.ModuleList(tables)
        else:
            self.rank_adaptive_classhead_emb = None

    @property
    def rank_adaptive(self) -> bool:
        """Whether logits depend on the rank position of their query."""
        return self.rank_adaptive_classhead_emb is not None

    def add_rank_bias(self, layer: int, logits: Tensor) -> Tensor:
        """Adds the bias of each rank position to class logits (B, Q, K) of decoder layer ``layer``."""
        if self.rank_adaptive_classhead_emb is None:
            return logits
        return logits + self.rank_adaptive_classhead_emb[layer].weight[: logits.shape[1]]
