"""Mask2Former's pixel decoder with FreqFusion, registered with mmdet (mmseg's Mask2Former takes it from there)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.layers import MSDeformAttnPixelDecoder
from mmdet.registry import MODELS
from torch import Tensor

from perception.layers.precision import at_least_float32

from .pyramid import add_top_down, adding_fusions


@MODELS.register_module()
class FreqAwareMSDeformAttnPixelDecoder(MSDeformAttnPixelDecoder):
    """mmdet's pixel decoder whose maps are fused by FreqFusion (the authors' ``FreqAwareMSDeformAttnPixelDecoder2``).

    The projected maps are fused from deep to shallow before the encoder, and what the encoder makes of the shallowest
    one is fused with the maps that it does not see, instead of being resized and added. Images must have sides that are
    multiples of the largest stride. Half precision is computed with in float32, whatever surrounds it.

    Args:
        compress_ratio: of the fusions.
        freq_fusion: other settings of :class:`~projects.freqfusion.fusion.FreqFusion`. By default the released ones:
            offsets in four groups, predicted without normalisation, and no Hamming window.
        **kwargs: of ``MSDeformAttnPixelDecoder``.
    """

    def __init__(self, compress_ratio: int = 8, freq_fusion: dict | None = None, **kwargs):
        super().__init__(**kwargs)
        settings = dict(
            feature_resample=True, feature_resample_group=4, feature_resample_norm=False, hamming_window=False
        )
        channels = [self.level_encoding.embedding_dim] * self.num_input_levels
        self.freqfusions = adding_fusions(channels, compress_ratio, **{**settings, **(freq_fusion or {})})

    def init_weights(self) -> None:
        """As mmdet's; the fusions start as FreqFusion does."""
        super().init_weights()
        for fusion in self.freqfusions:
            fusion.init_weights()

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Map for the masks, and maps for the transformer decoder.

        Args:
            feats: maps of the backbone (B, C_i, H_i, W_i), from shallow to deep.

        Returns:
            (B, out_channels, H_0, W_0), and ``num_outs`` maps (B, feat_channels, H_i, W_i) from deep to shallow.
        """
        with torch.autocast(feats[0].device.type, enabled=False):
            return self._decode([at_least_float32(x) for x in reversed(feats)])

    def _decode(self, feats: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        depth = self.num_encoder_levels
        sources = [conv(x) for conv, x in zip(self.input_convs, feats)]
        # Both lists run from deep to shallow, and `add_top_down` takes them the other way round.
        sources = add_top_down(sources[::-1], list(self.freqfusions[: depth - 1])[::-1])[::-1]
        outs = self._encode(sources)
        convs = zip(self.lateral_convs, self.output_convs)
        for x, fusion, (lateral, output) in zip(feats[depth:], self.freqfusions[depth - 1 :], convs):
            _, shallow, deep = fusion(lateral(x), outs[-1])
            outs.append(output(shallow + deep))
        return self.mask_feature(outs[-1]), outs[: self.num_outs]

    def _encode(self, sources: list[Tensor]) -> list[Tensor]:
        """The deformable encoder on maps (B, C, H_i, W_i)."""
        batch, device = sources[0].shape[0], sources[0].device
        shapes = [tuple(x.shape[2:]) for x in sources]
        sizes = [height * width for height, width in shapes]
        tokens, positions, places = [], [], []
        for x, (height, width), level in zip(sources, shapes, self.level_encoding.weight):
            nowhere = torch.zeros(batch, height, width, dtype=torch.bool, device=device)
            position = self.postional_encoding(nowhere) + level.view(1, -1, 1, 1)
            tokens.append(x.flatten(2).transpose(1, 2))
            positions.append(position.flatten(2).transpose(1, 2))
            down, across = ((torch.arange(size, device=device) + 0.5) / size for size in (height, width))
            rows, columns = torch.meshgrid(down, across, indexing="ij")
            places.append(torch.stack([columns, rows], -1).flatten(0, 1))
        spatial_shapes = torch.tensor(shapes, device=device)
        starts = torch.tensor([sum(sizes[:level]) for level in range(len(sizes))], device=device)
        memory = self.encoder(
            query=torch.cat(tokens, 1),
            query_pos=torch.cat(positions, 1),
            key_padding_mask=torch.zeros(batch, sum(sizes), dtype=torch.bool, device=device),
            spatial_shapes=spatial_shapes,
            level_start_index=starts,
            valid_ratios=tokens[0].new_ones(batch, len(shapes), 2),
            reference_points=torch.cat(places)[None, :, None].expand(batch, -1, len(shapes), -1),
        )
        return [x.transpose(1, 2).unflatten(2, shape) for x, shape in zip(memory.split(sizes, 1), shapes)]
