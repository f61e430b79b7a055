"""From feature maps of all cameras to decoded object queries, by way of the bird's-eye view (arXiv 2211.10439).

Notation: B batch, N cameras, V levels, C channels, T frames, Q object queries of a group, L decoder layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perception.geometry import bev
from perception.layers.deformable_attention import DeformableSampling
from perception.layers.precision import at_least_float32

from .attention import SpatialCrossAttention
from .decoder import BEVDecoder
from .encoder import BEVFormerEncoder
from .fusion import ResNetFusion, fill_missing
from .points import Rig, pillar_points, project_pillars, visible_queries


class BEVTransformer(nn.Module):
    """Encoder, fusion of frames and decoder.

    Args:
        grid: the cells.
        pc_range: lowest and highest x, y, z of the detection range, metres. Its x and y are those of the grid.
        embed_dims: C.
        num_heads: of every attention; or of the four kinds, temporal and spatial of the encoder, self- and
            cross-attention of the decoder.
        num_cams: N.
        num_levels: V.
        num_pillar_points: heights at which a cell is looked up in the images.
        num_temporal_points, num_spatial_points, num_decoder_points: samples of each head (and level) of the attentions.
        feedforward_channels: hidden width of the feed-forward blocks.
        num_encoder_layers, num_decoder_layers: depths.
        frames: offsets in key frames, ascending, with 0; more than one are fused.
        fusion_channels: width of the fusion; None: T times C.
        num_fusion_blocks: residual blocks of the fusion.
        dropout: of all layers.
        checkpointing: recompute the encoder's layers in the backward pass instead of keeping activations.

    Raises:
        ValueError: a range that has not six numbers, frames that do not ascend or lack 0, or heads for another number
            of attentions.
    """

    def __init__(
        self,
        grid: bev.BevGrid,
        pc_range: Sequence[float],
        embed_dims: int = 256,
        num_heads: int | Sequence[int] = 8,
        num_cams: int = 6,
        num_levels: int = 4,
        num_pillar_points: int = 4,
        num_temporal_points: int = 4,
        num_spatial_points: int = 8,
        num_decoder_points: int = 4,
        feedforward_channels: int = 512,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        frames: Sequence[int] = (0,),
        fusion_channels: int | None = 512,
        num_fusion_blocks: int = 3,
        dropout: float = 0.1,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if len(pc_range) != 6:
            raise ValueError(f"pc_range needs the lowest and highest x, y, z, six numbers, got {tuple(pc_range)}")
        if 0 not in frames or list(frames) != sorted(set(frames)):
            raise ValueError(f"frames must be different offsets in ascending order, 0 among them, got {tuple(frames)}")
        self.grid, self.pc_range, self.frames = grid, tuple(pc_range), tuple(frames)
        self.bev_size = (grid.rows, grid.columns)
        self.num_pillar_points = num_pillar_points
        heads = (num_heads,) * 4 if isinstance(num_heads, int) else tuple(num_heads)
        if len(heads) != 4:
            raise ValueError(f"num_heads must be one number or four, got {heads}")
        shared = dict(embed_dims=embed_dims, dropout=dropout, feedforward_channels=feedforward_channels)
        looking = dict(num_temporal_points=num_temporal_points, num_spatial_points=num_spatial_points)
        layer = dict(num_heads=heads[:2], num_levels=num_levels, **looking, **shared)
        self.encoder = BEVFormerEncoder(num_encoder_layers, layer, checkpointing)
        self.decoder = BEVDecoder(
            num_decoder_layers, dict(num_heads=heads[2:], num_points=num_decoder_points, **shared)
        )
        self.fusion = None
        if len(frames) > 1:
            self.fusion = ResNetFusion(len(frames), embed_dims, fusion_channels, num_fusion_blocks)
        self.level_embeds = nn.Parameter(torch.empty(num_levels, embed_dims))
        self.cams_embeds = nn.Parameter(torch.empty(num_cams, embed_dims))
        self.reference_points = nn.Linear(embed_dims, 3)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform for every matrix, the embeddings of levels and cameras included; attentions as they do."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, DeformableSampling | SpatialCrossAttention):
                module.reset_parameters()
        nn.init.zeros_(self.reference_points.bias)

    def encode(
        self,
        feats: Sequence[Tensor],
        rig: Rig,
        queries: Tensor,
        position: Tensor,
        bev_warp: Tensor | None = None,
        previous: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        """The bird's-eye view of one frame, in the axes of the detection frame.

        Args:
            feats: V maps (B, N, C, H_v, W_v).
            rig: cameras. Those of another frame than the current are given from the current LiDAR's frame, by which
                ego motion enters.
            queries, position: (cells, C).
            bev_warp: (B, 2+, 2+) inverse of the map by which the ground truth was augmented; None without augmentation.
            previous, shift: see :class:`BEVFormerEncoder`.

        Returns:
            (B, cells, C), row by row.

        Raises:
            ValueError: maps of another number of levels or cameras than the model's, or of other samples and cameras
                than the rig's.
        """
        tokens, shapes = self._tokens(feats)
        if rig.lidar2img.shape != (*tokens.shape[:2], 4, 4):
            raise ValueError(
                f"maps of {tokens.shape[0]} samples and {tokens.shape[1]} cameras need as many matrices, lidar2img "
                f"({tokens.shape[0]}, {tokens.shape[1]}, 4, 4), got {tuple(rig.lidar2img.shape)}"
            )
        device = tokens.device
        pillars = pillar_points(self.grid, self.num_pillar_points, self.pc_range[5] - self.pc_range[2], device)
        visible = visible_queries(*project_pillars(pillars, self.pc_range, rig))
        view = self.encoder(
            queries.expand(len(tokens), -1, -1),
            position.expand(len(tokens), -1, -1),
            tokens,
            visible,
            shapes,
            self.grid.places(device=device),
            self.bev_size,
            previous,
            shift,
        )
        if bev_warp is None:
            return view
        with torch.autocast(device.type, enabled=False):
            maps = at_least_float32(view).mT.unflatten(-1, self.bev_size)
            return bev.warp(maps, bev_warp.to(maps), self.grid).flatten(2).mT.to(view.dtype)

    def fuse(self, current: Tensor, history: Sequence[Tensor | None] = (), present: Tensor | None = None) -> Tensor:
        """The view that is decoded.

        Args:
            current: (B, cells, C) of now.
            history: of T views, the oldest first; that of now is put in. None where no sample has the frame.
            present: (B, T) bool, see :func:`fill_missing`.

        Raises:
            ValueError: another number of views than of frames.
        """
        if self.fusion is None:
            return current
        if len(history) != len(self.frames):
            raise ValueError(f"the frames {self.frames} need {len(self.frames)} views, got {len(history)}")
        now = self.frames.index(0)
        views = [current if t == now else view for t, view in enumerate(history)]
        return self.fusion(fill_missing(views, now, present), self.bev_size)

    def decode(
        self,
        view: Tensor,
        content: Tensor,
        query_pos: Tensor,
        reference: Tensor,
        reg_branches: nn.ModuleList,
        num_groups: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """See :class:`BEVDecoder`."""
        return self.decoder(content, query_pos, reference, view, self.bev_size, reg_branches, num_groups)

    def _tokens(self, feats: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps as tokens (B, N, S, C) that know their camera and level, and the sizes of the levels (V, 2)."""
        if len(feats) != len(self.level_embeds):
            raise ValueError(f"the model takes maps of {len(self.level_embeds)} levels, got {len(feats)}")
        if feats[0].shape[1] != len(self.cams_embeds):
            raise ValueError(f"the model knows {len(self.cams_embeds)} cameras, but there are {feats[0].shape[1]}")
        tokens = [
            feat.flatten(3).mT + self.cams_embeds[:, None] + embed  # B, N, H W, C
            for feat, embed in zip(feats, self.level_embeds, strict=True)
        ]
        # On the CPU, where the operators that ask for it do not wait for the device.
        return torch.cat(tokens, 2), torch.tensor([feat.shape[-2:] for feat in feats])
