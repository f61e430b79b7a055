"""A tiny Rank-DETR core for tests, and inputs for it."""

import torch
from torch import Tensor, nn

from projects.rank_detr.head import RankDetrHead
from projects.rank_detr.transformer import RankDetrOutput, RankDetrTransformer

CHANNELS, CLASSES, ONE2ONE, ONE2MANY, LAYERS = 32, 5, 20, 40, 3


class TinyRankDetr(nn.Module):
    """Transformer and heads with C = 32, 4 heads, 2 + 3 layers, 4 levels."""

    def __init__(self, rank_head: bool = True, rank_layer: bool = True, one2many: int = ONE2MANY, **kwargs) -> None:
        super().__init__()
        self.transformer = RankDetrTransformer(
            embed_dims=CHANNELS,
            num_heads=4,
            feedforward_channels=64,
            num_encoder_layers=2,
            num_decoder_layers=LAYERS,
            num_queries_one2one=ONE2ONE,
            num_queries_one2many=one2many,
            query_rank_layer=rank_layer,
            **kwargs,
        )
        self.head = RankDetrHead(CLASSES, CHANNELS, LAYERS, ONE2ONE + one2many, rank_head)

    def forward(self, feats: list[Tensor], masks: list[Tensor]) -> RankDetrOutput:
        return self.transformer(feats, masks, self.head)

    def randomise(self, generator: torch.Generator) -> "TinyRankDetr":
        """Weights for which every part matters: the initial ones leave boxes, offsets and rank biases at zero."""
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        return self


def features(
    generator: torch.Generator, batch: int = 2, size: tuple[int, int] = (16, 20)
) -> tuple[list[Tensor], list[Tensor]]:
    """Four levels of random features without padding."""
    feats = []
    for level in range(4):
        height, width = (max(1, -(-side // 2**level)) for side in size)
        feats.append(torch.randn(batch, CHANNELS, height, width, generator=generator))
    return feats, [torch.zeros(batch, *feat.shape[-2:], dtype=torch.bool) for feat in feats]
