"""Rank-DETR: transformer and heads, from the neck's maps to boxes and scores."""

import torch
from torch import nn

from projects.rank_detr.head import RankDetrHead
from projects.rank_detr.transformer import RankDetrTransformer
from system_cases import Core


class _Detector(nn.Module):
    def __init__(self, width: int, layers: int, queries: int, extra: int):
        super().__init__()
        self.transformer = RankDetrTransformer(
            embed_dims=width,
            num_heads=8 if width > 64 else 4,
            num_points=4,
            num_levels=4,
            feedforward_channels=8 * width,
            num_encoder_layers=layers,
            num_decoder_layers=layers,
            num_queries_one2one=queries,
            num_queries_one2many=extra,
        )
        self.head = RankDetrHead(80, width, layers, queries + extra)

    def forward(self, *maps):
        masks = [x.new_zeros(len(x), *x.shape[-2:], dtype=torch.bool) for x in maps]
        return self.transformer(list(maps), masks, self.head)


def core(large: bool) -> Core:
    width, layers, queries, extra, side = (256, 6, 300, 1500, 100) if large else (32, 2, 10, 20, 8)
    maps = tuple(torch.randn(2, width, -(-side // 2**k), -(-side // 2**k)) for k in range(4))
    return Core(_Detector(width, layers, queries, extra), maps, _loss)


def _loss(detector, *maps):
    output = detector(*maps)
    return output.logits.square().mean() + output.boxes.square().mean()
