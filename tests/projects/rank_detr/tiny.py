"""A tiny Rank-DETR core for tests, inputs for it, and what its decoder layers saw."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from projects.rank_detr.head import RankDetrHead
from projects.rank_detr.transformer import RankDetrOutput, RankDetrTransformer, rank_within_groups

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


@dataclass
class LayerCall:
    """One call of a decoder layer on images without padding: its inputs, its output and the ranking of that."""

    content: Tensor
    query_pos: Tensor
    reference: Tensor
    state: Tensor
    order: Tensor


def traced(model: TinyRankDetr, feats: list[Tensor], masks: list[Tensor]) -> tuple[RankDetrOutput, list[LayerCall]]:
    """The model's output, and the calls of its decoder layers."""
    seen = []
    hooks = [
        layer.register_forward_hook(lambda _, inputs, state: seen.append((*inputs[:3], state)))
        for layer in model.transformer.decoder.layers
    ]
    output = model(feats, masks)
    for hook in hooks:
        hook.remove()
    calls = []
    for i, (content, query_pos, reference_points, state) in enumerate(seen):
        scores = model.head.cls_branches[i](state).amax(-1)
        order = rank_within_groups(scores, output.group_sizes)
        calls.append(LayerCall(content, query_pos, reference_points[:, :, 0], state, order))
    return output, calls
