"""The Rank-DETR transformer: deformable encoder, two-stage query selection, decoder with query rank layers.

Plain torch. Boxes are cx, cy, w, h relative to the un-padded image. Notation: B batch, S tokens over all levels, Q
queries, C channels, V levels, L decoder layers, K classes. Source: arXiv 2310.08854, section 3; the hybrid one-to-many
branch is H-Deformable-DETR's (arXiv 2207.13080).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perception.layers.deformable_attention import MultiScaleDeformableAttention
from perception.layers.inverse_sigmoid import inverse_sigmoid
from perception.layers.precision import at_least_float32

from .head import RankDetrHead
from .layers import DecoderLayer, EncoderLayer, proposal_position_embedding
from .levels import FlatLevels, encoder_proposals, encoder_reference_points, flatten_levels

# Of the logits of references, in the whole system; the 1e-5 that other DETRs use breaks published weights.
REFERENCE_EPS = 1e-3


@dataclass
class RankDetrOutput:
    """Predictions of every decoder layer and of the encoder.

    Attributes:
        logits: (L, B, Q, K) class logits, rank bias included. With a rank design on, row r of a layer is the query that
            the layer before ranked r-th of its group.
        boxes: (L, B, Q, 4) in (0, 1), of the same queries.
        enc_logits: (B, S, K); channel 0 is the objectness of a token.
        enc_boxes: (B, S, 4).
        group_sizes: queries of each group: one-to-one, and in training one-to-many.
    """

    logits: Tensor
    boxes: Tensor
    enc_logits: Tensor
    enc_boxes: Tensor
    group_sizes: tuple[int, ...]


@dataclass
class QuerySelection:
    """The best tokens of the encoder as queries of the decoder, and what the encoder predicts for all tokens.

    Attributes:
        content: (B, Q, C).
        position: (B, Q, C).
        reference: (B, Q, 4) initial boxes in (0, 1), best first, without gradient.
        enc_logits: (B, S, K).
        enc_boxes: (B, S, 4) in (0, 1).
    """

    content: Tensor
    position: Tensor
    reference: Tensor
    enc_logits: Tensor
    enc_boxes: Tensor


@dataclass
class DecoderOutput:
    """Predictions of every decoder layer, see :class:`RankDetrOutput`.

    Attributes:
        logits: (L, B, Q, K).
        boxes: (L, B, Q, 4).
    """

    logits: Tensor
    boxes: Tensor


class DeformableEncoder(nn.Module):
    """A stack of :class:`EncoderLayer`; no final norm."""

    def __init__(self, num_layers: int, layer: dict, checkpointing: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(**layer) for _ in range(num_layers))
        self.checkpointing = checkpointing

    def forward(self, levels: FlatLevels) -> Tensor:
        """(B, S, C): the tokens after all layers."""
        reference_points = encoder_reference_points(levels.spatial_shapes, levels.valid_ratios)
        x = levels.tokens
        for layer in self.layers:
            x = _run(
                layer, self.checkpointing, x, levels.position, reference_points, levels.spatial_shapes, levels.mask
            )
        return x


class RankDetrDecoder(nn.Module):
    """Decoder with a query rank layer before each layer but the first (arXiv 2310.08854, section 3.3).

    Args:
        num_layers: L.
        layer: keyword arguments of :class:`DecoderLayer`.
        num_queries: rows of the rank-aware content tables.
        query_rank_layer: False leaves tables and fusion out.
        look_forward_twice: let the box loss of a layer reach the layer before it.
        checkpointing: recompute layers in the backward pass instead of keeping activations.
    """

    def __init__(
        self,
        num_layers: int,
        layer: dict,
        num_queries: int,
        query_rank_layer: bool = True,
        look_forward_twice: bool = True,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        channels = layer["embed_dims"]
        self.layers = nn.ModuleList(DecoderLayer(**layer) for _ in range(num_layers))
        self.query_rank_layer = query_rank_layer
        self.look_forward_twice = look_forward_twice
        self.checkpointing = checkpointing
        if query_rank_layer:
            between = range(num_layers - 1)
            self.rank_aware_content_query = nn.ModuleList(nn.Embedding(num_queries, channels) for _ in between)
            self.pre_racq_trans = nn.ModuleList(nn.Linear(channels, channels) for _ in between)
            self.post_racq_trans = nn.ModuleList(nn.Linear(2 * channels, channels) for _ in between)

    def forward(
        self,
        queries: QuerySelection,
        memory: Tensor,
        levels: FlatLevels,
        head: RankDetrHead,
        group_sizes: tuple[int, ...],
    ) -> DecoderOutput:
        """Runs all layers.

        Args:
            queries: what the first layer starts from.
            memory: (B, S, C) encoder output.
            levels: its layout and padding.
            head: prediction branches, which also refine references and rank queries.
            group_sizes: queries of each group; groups neither see each other nor are sorted together.
        """
        sort_queries = self.query_rank_layer or head.rank_adaptive
        x, query_pos, reference = queries.content, queries.position, queries.reference
        attn_mask = group_attention_mask(group_sizes, x.device)
        ratios = torch.cat([levels.valid_ratios, levels.valid_ratios], -1)[:, None]  # B, 1, V, 4
        logits, boxes = [], []
        reference_with_grad = reference
        for i, layer in enumerate(self.layers):
            if i and self.query_rank_layer:
                x = self._fuse_rank(i - 1, x)
            x = _run(
                layer, self.checkpointing, x, query_pos, reference[:, :, None] * ratios, memory, levels.spatial_shapes,
                levels.mask, attn_mask,
            )  # fmt: skip
            delta = at_least_float32(head.reg_branches[i](x))
            scores = head.cls_branches[i](x)
            logits.append(head.add_rank_bias(i, scores))
            boxes.append((delta + inverse_sigmoid(reference_with_grad, REFERENCE_EPS)).sigmoid())
            if i + 1 == len(self.layers):
                break

            refined = (delta + inverse_sigmoid(reference, REFERENCE_EPS)).sigmoid()
            if sort_queries:
                # The bias of the rank-adaptive head is left out here: published weights were trained so.
                order = rank_within_groups(scores.detach().amax(-1), group_sizes)
                x, query_pos, refined = (_gather(part, order) for part in (x, query_pos, refined))
            reference = refined.detach()
            reference_with_grad = refined if self.look_forward_twice else reference
        return DecoderOutput(torch.stack(logits), torch.stack(boxes))

    def _fuse_rank(self, index: int, x: Tensor) -> Tensor:
        """Content (B, Q, C), sorted, with the rank-aware content of each place (section 3.3).

        ``post_racq_trans([x, pre_racq_trans(rank_aware_content_query)])``, where [,] joins channels. The linear map is
        applied to its halves apart, since the second is the same for the whole batch.
        """
        channels = x.shape[-1]
        fuse = self.post_racq_trans[index]
        rank_content = self.pre_racq_trans[index](self.rank_aware_content_query[index].weight[: x.shape[1]])
        from_rank = nn.functional.linear(rank_content, fuse.weight[:, channels:], fuse.bias)
        return nn.functional.linear(x, fuse.weight[:, :channels]) + from_rank


class RankDetrTransformer(nn.Module):
    """Everything between the neck's feature maps and the predictions.

    Args:
        embed_dims: C.
        num_heads: heads of every attention.
        num_levels: feature levels V.
        num_points: samples per head and level.
        feedforward_channels: hidden width of the feed-forward blocks.
        num_encoder_layers: encoder depth.
        num_decoder_layers: decoder depth L.
        num_queries_one2one: queries that are matched one to one, the only ones at test time.
        num_queries_one2many: further queries in training, each target matched several times; 0 leaves the branch out.
        query_rank_layer: sort queries by score between decoder layers and fuse a content vector per rank.
        look_forward_twice: see :class:`RankDetrDecoder`.
        mixed_selection: content queries from a learned table (True) or from the proposals (False).
        checkpointing: recompute encoder and decoder layers in the backward pass.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        feedforward_channels: int = 2048,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        num_queries_one2one: int = 300,
        num_queries_one2many: int = 1500,
        query_rank_layer: bool = True,
        look_forward_twice: bool = True,
        mixed_selection: bool = True,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.num_queries_one2one, self.num_queries_one2many = num_queries_one2one, num_queries_one2many
        num_queries = num_queries_one2one + num_queries_one2many
        layer = dict(
            embed_dims=embed_dims,
            num_heads=num_heads,
            num_levels=num_levels,
            num_points=num_points,
            feedforward_channels=feedforward_channels,
        )
        self.level_embed = nn.Parameter(torch.empty(num_levels, embed_dims))
        self.encoder = DeformableEncoder(num_encoder_layers, layer, checkpointing)
        self.decoder = RankDetrDecoder(
            num_decoder_layers, layer, num_queries, query_rank_layer, look_forward_twice, checkpointing
        )
        self.memory_trans_fc = nn.Linear(embed_dims, embed_dims)
        self.memory_trans_norm = nn.LayerNorm(embed_dims)
        self.pos_trans_fc = nn.Linear(2 * embed_dims, 2 * embed_dims)
        self.pos_trans_norm = nn.LayerNorm(2 * embed_dims)
        self.reset_parameters()
        self.query_embedding = nn.Embedding(num_queries, embed_dims) if mixed_selection else None

    def reset_parameters(self) -> None:
        """Xavier-uniform for every matrix, the rank tables included (as the released code effectively does)."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.reset_parameters()
        nn.init.normal_(self.level_embed)

    def forward(self, feats: list[Tensor], masks: list[Tensor], head: RankDetrHead) -> RankDetrOutput:
        """
        Args:
            feats: V maps (B, C, H_v, W_v).
            masks: V masks (B, H_v, W_v) bool, True where the token is padding.
            head: prediction branches; those of the decoder also refine references and rank queries.

        Returns:
            Predictions over one-to-one queries, followed in training mode by the one-to-many queries.
        """
        levels = flatten_levels(feats, masks, self.level_embed)
        memory = self.encoder(levels)
        group_sizes = self.group_sizes(memory.shape[1])
        queries = self.select_queries(memory, levels, head, sum(group_sizes))
        decoded = self.decoder(queries, memory, levels, head, group_sizes)
        return RankDetrOutput(decoded.logits, decoded.boxes, queries.enc_logits, queries.enc_boxes, group_sizes)

    def group_sizes(self, num_tokens: int) -> tuple[int, ...]:
        """Queries per group, never more than there are tokens to propose them (tiny images have fewer)."""
        one2one = min(self.num_queries_one2one, num_tokens)
        if not self.training or self.num_queries_one2many == 0:
            return (one2one,)
        return one2one, min(self.num_queries_one2many, num_tokens - one2one)

    def select_queries(
        self, memory: Tensor, levels: FlatLevels, head: RankDetrHead, num_queries: int
    ) -> QuerySelection:
        """Predicts a box and an objectness for every token, and makes queries of the best ("two-stage").

        Args:
            memory: (B, S, C) encoder output.
            levels: its layout and padding.
            head: prediction branches, of which the last is the encoder's.
            num_queries: Q, at most S.
        """
        candidates, proposal_logits = encoder_proposals(memory, levels.mask, levels.spatial_shapes)
        candidates = self.memory_trans_norm(self.memory_trans_fc(candidates))
        enc_logits = head.cls_branches[head.num_layers](candidates)
        enc_box_logits = at_least_float32(head.reg_branches[head.num_layers](candidates)) + proposal_logits

        # topk sorts: row i is the proposal of rank i, and the one-to-one group takes the best.
        chosen = enc_logits[..., 0].topk(num_queries, dim=1).indices
        box_logits = _gather(enc_box_logits, chosen).detach()
        embedded = proposal_position_embedding(box_logits, self.embed_dims // 2).to(memory.dtype)
        position, content = self.pos_trans_norm(self.pos_trans_fc(embedded)).split(self.embed_dims, -1)
        if self.query_embedding is not None:
            content = self.query_embedding.weight[:num_queries].expand(memory.shape[0], -1, -1)
        return QuerySelection(content, position, box_logits.sigmoid(), enc_logits, enc_box_logits.sigmoid())


def rank_within_groups(scores: Tensor, group_sizes: tuple[int, ...]) -> Tensor:
    """Indices that sort each group of queries by descending score: (B, Q) -> (B, Q) int64."""
    orders, start = [], 0
    for size in group_sizes:
        orders.append(scores[:, start : start + size].argsort(1, descending=True) + start)
        start += size
    return torch.cat(orders, 1)


def group_attention_mask(group_sizes: tuple[int, ...], device: torch.device) -> Tensor | None:
    """(Q, Q) bool, True between queries of different groups; None for a single group."""
    if len(group_sizes) == 1:
        return None
    sizes = torch.tensor(group_sizes, device=device)
    group = torch.arange(len(group_sizes), device=device).repeat_interleave(sizes)
    return group[:, None] != group[None]


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x (B, N, D) by index (B, M) -> (B, M, D)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def _run(layer: nn.Module, checkpointing: bool, *args: Tensor | None) -> Tensor:
    if checkpointing and torch.is_grad_enabled():
        return checkpoint(layer, *args, use_reentrant=False)
    return layer(*args)
