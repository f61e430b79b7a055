"""The Rank-DETR transformer: deformable encoder, two-stage proposals, decoder with query rank layers.

Plain torch. Boxes are cx, cy, w, h relative to the un-padded image. Source: arXiv 2310.08854, section 3; the hybrid
one-to-many branch is H-Deformable-DETR's (arXiv 2207.13080).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perception.layers.deformable_attention import MultiScaleDeformableAttention
from perception.layers.inverse_sigmoid import inverse_sigmoid
from perception.layers.position_encoding import sine_position_encoding

from .head import RankDetrHead
from .layers import DecoderLayer, EncoderLayer, proposal_position_embedding

# Of the logits of references, in the whole system; the 1e-5 that other DETRs use breaks published weights.
REFERENCE_EPS = 1e-3


@dataclass
class RankDetrOutput:
    """Predictions of every decoder layer and of the encoder.

    Attributes:
        logits: (L, B, Q, K) class logits, rank bias included.
        boxes: (L, B, Q, 4) in (0, 1).
        enc_logits: (B, S, K); channel 0 is the objectness of a token.
        enc_boxes: (B, S, 4).
        states: (L, B, Q, C), row i as layer l saw it.
        references: L + 1 tensors (B, Q, 4): the initial reference, then each layer's (sorted by that layer's scores
            when a rank design is on).
        rank_indices: L tensors (B, Q), the order that each layer's scores gave; empty without rank designs.
        group_sizes: queries of each group: one-to-one, and in training one-to-many.
    """

    logits: Tensor
    boxes: Tensor
    enc_logits: Tensor
    enc_boxes: Tensor
    states: Tensor
    references: list[Tensor]
    rank_indices: list[Tensor]
    group_sizes: tuple[int, ...]


class DeformableEncoder(nn.Module):
    """A stack of :class:`EncoderLayer`; no final norm."""

    def __init__(self, num_layers: int, layer: dict, checkpointing: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(**layer) for _ in range(num_layers))
        self.checkpointing = checkpointing

    def forward(
        self, x: Tensor, position: Tensor, spatial_shapes: Tensor, valid_ratios: Tensor, mask: Tensor | None
    ) -> Tensor:
        reference_points = encoder_reference_points(spatial_shapes, valid_ratios)
        for layer in self.layers:
            x = _run(layer, self.checkpointing, x, position, reference_points, spatial_shapes, mask)
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
        content: Tensor,
        query_pos: Tensor,
        reference: Tensor,
        memory: Tensor,
        spatial_shapes: Tensor,
        valid_ratios: Tensor,
        memory_mask: Tensor | None,
        head: RankDetrHead,
        group_sizes: tuple[int, ...],
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Runs all layers.

        Returns:
            Per layer: states (B, Q, C), logits (B, Q, K), boxes (B, Q, 4), references for the next layer (B, Q, 4), and
            (with a rank design) the sorting indices (B, Q).
        """
        sort_queries = self.query_rank_layer or head.rank_adaptive
        attn_mask = group_attention_mask(group_sizes, content.device)
        ratios = torch.cat([valid_ratios, valid_ratios], -1)[:, None]  # B, 1, V, 4
        states, logits, boxes, references, rank_indices = [], [], [], [], []
        x, reference_with_grad = content, reference
        for i, layer in enumerate(self.layers):
            if i and sort_queries:
                x, query_pos = _gather(x, rank_indices[-1]), _gather(query_pos, rank_indices[-1])
            if i and self.query_rank_layer:
                x = self._fuse_rank(i - 1, x)
            x = _run(
                layer, self.checkpointing, x, query_pos, reference[:, :, None] * ratios, memory, spatial_shapes,
                memory_mask, attn_mask,
            )  # fmt: skip
            delta = head.reg_branches[i](x).float()
            scores = head.cls_branches[i](x)
            states.append(x)
            logits.append(head.add_rank_bias(i, scores))
            boxes.append((delta + inverse_sigmoid(reference_with_grad, REFERENCE_EPS)).sigmoid())

            new_reference = (delta + inverse_sigmoid(reference, REFERENCE_EPS)).sigmoid()
            if sort_queries:
                # The bias of the rank-adaptive head is left out here: published weights were trained so.
                order = rank_within_groups(scores.detach().amax(-1), group_sizes)
                rank_indices.append(order)
                new_reference = _gather(new_reference, order)
            reference = new_reference.detach()
            reference_with_grad = new_reference if self.look_forward_twice else reference
            references.append(reference_with_grad)
        return states, logits, boxes, references, rank_indices

    def _fuse_rank(self, index: int, x: Tensor) -> Tensor:
        """Linear over [content, rank-aware content]; the table's half is the same for the whole batch."""
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
        tokens, position, mask, spatial_shapes, valid_ratios = self.flatten_levels(feats, masks)
        memory = self.encoder(tokens, position, spatial_shapes, valid_ratios, mask)

        candidates, proposal_logits = encoder_proposals(memory, mask, spatial_shapes)
        candidates = self.memory_trans_norm(self.memory_trans_fc(candidates))
        last = head.num_layers
        enc_logits = head.cls_branches[last](candidates)
        enc_box_logits = head.reg_branches[last](candidates).float() + proposal_logits

        group_sizes = self.group_sizes(memory.shape[1])
        num_queries = sum(group_sizes)
        # topk sorts: row i is the proposal of rank i, and the one-to-one group takes the best.
        chosen = enc_logits[..., 0].topk(num_queries, dim=1).indices
        box_logits = _gather(enc_box_logits, chosen).detach()
        embedded = proposal_position_embedding(box_logits, self.embed_dims // 2).to(memory.dtype)
        query_pos, content = self.pos_trans_norm(self.pos_trans_fc(embedded)).split(self.embed_dims, -1)
        if self.query_embedding is not None:
            content = self.query_embedding.weight[:num_queries].expand(memory.shape[0], -1, -1)

        initial = box_logits.sigmoid()
        states, logits, boxes, references, rank_indices = self.decoder(
            content, query_pos, initial, memory, spatial_shapes, valid_ratios, mask, head, group_sizes
        )
        return RankDetrOutput(
            logits=torch.stack(logits),
            boxes=torch.stack(boxes),
            enc_logits=enc_logits,
            enc_boxes=enc_box_logits.sigmoid(),
            states=torch.stack(states),
            references=[initial, *references],
            rank_indices=rank_indices,
            group_sizes=group_sizes,
        )

    def group_sizes(self, num_tokens: int) -> tuple[int, ...]:
        """Queries per group, never more than there are tokens to propose them (tiny images have fewer)."""
        one2one = min(self.num_queries_one2one, num_tokens)
        if not self.training or self.num_queries_one2many == 0:
            return (one2one,)
        return one2one, min(self.num_queries_one2many, num_tokens - one2one)

    def flatten_levels(
        self, feats: list[Tensor], masks: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
        """Concatenates the levels.

        Returns:
            tokens (B, S, C), position (B, S, C), mask (B, S) bool or None when nothing is padded,
            spatial shapes (V, 2) int64, valid ratios (B, V, 2) as x, y.
        """
        tokens = torch.cat([feat.flatten(2).transpose(1, 2) for feat in feats], 1)
        position = torch.cat(
            [
                sine_position_encoding(mask, self.embed_dims // 2).flatten(2).transpose(1, 2).to(tokens.dtype) + embed
                for mask, embed in zip(masks, self.level_embed)
            ],
            1,
        )
        # Kept on the CPU: sizes are read by Python, and a device tensor would stall it.
        spatial_shapes = torch.tensor([feat.shape[-2:] for feat in feats], dtype=torch.int64)
        valid_ratios = torch.stack([valid_ratio(mask) for mask in masks], 1)
        mask = torch.cat([mask.flatten(1) for mask in masks], 1)
        return tokens, position, mask, spatial_shapes, valid_ratios


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
