"""Trackers that look for a template in a search area: P2B (arXiv 2005.13888), and SiamCUT, P2B on AdaFormer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perception.layers.point_sets import SetAbstraction, SharedMLP, conv1d_stack, evaluated_layers, maximum


@dataclass
class SiameseOutput:
    """Proposals of a Siamese tracker, in the frame of the search area's reference box.

    Attributes:
        boxes: (B, P, 5): centre x, y, z (m), yaw (the unit of the targets that it was trained on) and logit of the
            score.
        centres: (B, P, 3) around which votes were gathered.
        targetness: (B, S) logits: the search point lies on the target.
        votes: (B, S, 3) where the search points vote the centre to be.
        seeds: (B, S) indices of the search points that the backbone kept.
    """

    boxes: Tensor
    centres: Tensor
    targetness: Tensor
    votes: Tensor
    seeds: Tensor

    def best(self) -> tuple[Tensor, Tensor]:
        """The proposal (B, 4) of highest score, and the score's logit (B)."""
        score, place = self.boxes[..., 4].max(1)
        return self.boxes.gather(1, place[:, None, None].expand(-1, 1, 5))[:, 0, :4], score

    def mean(self) -> tuple[Tensor, Tensor]:
        """The mean (B, 4) of all proposals, weighted by the softmax of their scores' logits, and the highest of these
        (B). Yaws are averaged as numbers: they are small, in the frame of the reference box."""
        score = self.boxes[..., 4]
        return (score.softmax(1)[..., None] * self.boxes[..., :4]).sum(1), score.amax(1)


class P2BXCorr(nn.Module):
    """Compares each search point with all template points (P2B, section 3.2).

    Args:
        in_channels: of the features.
        hidden_channels: of the layers.
        out_channels: of the result.
        likeness_gain: factor of the cosine's first weights. A search point is known by its cosines alone, which differ
            little between points and are one channel among many: with 1, as published, it takes long until they count.

    Shape:
        template features (B, C, M), search features (B, C, S), template positions (B, M, 3) to (B, out, S).
    """

    def __init__(
        self,
        in_channels: int = 256,
        hidden_channels: int = 256,
        out_channels: int = 256,
        likeness_gain: float = 1.0,
    ):
        super().__init__()
        self.mlp = SharedMLP([4 + in_channels, hidden_channels, hidden_channels, hidden_channels])
        with torch.no_grad():
            self.mlp[0].conv.weight[:, 0] *= likeness_gain
        self.fea_layer = conv1d_stack([hidden_channels, hidden_channels], out_channels)

    def forward(self, template: Tensor, search: Tensor, template_xyz: Tensor) -> Tensor:
        likeness = _unit(template).mT @ _unit(search)  # (B, M, S), the cosine
        described = torch.cat([template_xyz.mT, template], 1)
        # The first layer sees (cosine, described); the latter is the same for all search points.
        first, *others = self.mlp
        if self.training:
            weight = first.conv.weight.flatten(1)
            x = weight[:, 0, None, None] * likeness[:, None] + (weight[:, 1:] @ described)[..., None]
            x = first.activation(first.bn(x))
            for layer in others:
                x = layer(x)
            return self.fea_layer(maximum(x, 2))
        weight, bias = first.folded()
        x = likeness[..., None] * weight[:, 0] + F.linear(described.mT, weight[:, 1:], bias)[:, :, None]
        return self.fea_layer(maximum(evaluated_layers(others, x.relu_()), 1).mT)


def _unit(features: Tensor) -> Tensor:
    """Features (B, C, N) of length 1, none divided by less than 1e-8."""
    return features / features.norm(dim=1, keepdim=True).clamp(min=1e-8)


class VoteRPN(nn.Module):
    """Lets search points vote for the target's centre and proposes boxes where votes meet (P2B, section 3.3).

    Args:
        channels: of the features.
        vote_channels: of the layers behind the votes.
        num_proposals: boxes; the first votes are their centres.
        radius: within which votes are gathered, metres.
        num_samples: votes of a proposal.
        normalize_xyz: votes relative to a centre in units of the radius.

    Shape:
        xyz (B, S, 3), features (B, C, S) to :class:`SiameseOutput` without seeds' indices.
    """

    def __init__(
        self,
        channels: int = 256,
        vote_channels: int = 256,
        num_proposals: int = 64,
        radius: float = 0.3,
        num_samples: int = 16,
        normalize_xyz: bool = False,
    ):
        super().__init__()
        self.num_proposals = num_proposals
        self.FC_layer_cla = conv1d_stack([channels, channels, channels], 1)
        self.vote_layer = conv1d_stack([3 + channels, channels, channels], 3 + channels)
        widths = [1 + channels, vote_channels, vote_channels, vote_channels]
        self.vote_aggregation = SetAbstraction(radius, num_samples, widths, normalize_xyz=normalize_xyz)
        self.FC_proposal = conv1d_stack([vote_channels, vote_channels, vote_channels], 5)

    def forward(self, xyz: Tensor, features: Tensor, seeds: Tensor) -> SiameseOutput:
        targetness = self.FC_layer_cla(features)[:, 0]
        placed = torch.cat([xyz.mT, features], 1)
        votes = placed + self.vote_layer(placed)
        vote_xyz = votes[:, :3].mT.contiguous()
        scored = torch.cat([targetness.sigmoid()[:, None], votes[:, 3:]], 1)
        centres, gathered, _ = self.vote_aggregation(vote_xyz, scored, self.num_proposals)
        proposals = self.FC_proposal(gathered).mT  # (B, P, 5)
        boxes = torch.cat([proposals[..., :3] + centres, proposals[..., 3:]], -1)
        return SiameseOutput(boxes, centres, targetness, vote_xyz, seeds)


class SiameseNetwork(nn.Module):
    """A backbone that template and search area share, their comparison, and the voting.

    Args:
        backbone: :class:`.backbone.AdaFormer` (SiamCUT) or :class:`.pointnet2.PointNet2SSG` (P2B).
        channels: of the features that are compared.
        vote_channels: of the layers behind the votes.
        num_proposals: boxes.
        vote_radius: metres.
        vote_samples: votes of a proposal.
        likeness_gain: see :class:`P2BXCorr`.
        hidden_channels: of the comparison's layers; by default as many as ``channels``.
        normalize_xyz: votes relative to a centre in units of the radius. The backbone has a switch of its own.

    Shape:
        template (B, M, 3 + C), search (B, N, 3 + C); the backbone keeps an eighth of both.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: int = 256,
        vote_channels: int = 256,
        num_proposals: int = 64,
        vote_radius: float = 0.3,
        vote_samples: int = 16,
        likeness_gain: float = 1.0,
        hidden_channels: int | None = None,
        normalize_xyz: bool = False,
    ):
        super().__init__()
        self.backbone = backbone
        self.conv_final = nn.Conv1d(backbone.out_channels, channels, 1)
        self.xcorr = P2BXCorr(channels, hidden_channels or channels, channels, likeness_gain)
        self.rpn = VoteRPN(channels, vote_channels, num_proposals, vote_radius, vote_samples, normalize_xyz)

    def forward(self, template: Tensor, search: Tensor) -> SiameseOutput:
        template_xyz, template_features, _ = self._describe(template)
        search_xyz, search_features, seeds = self._describe(search)
        return self.rpn(search_xyz, self.xcorr(template_features, search_features, template_xyz), seeds)

    def _describe(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count = points.shape[1]
        levels = self.backbone(points, (count // 2, count // 4, count // 8))
        return levels.xyz[-1], self.conv_final(levels.features[-1]), levels.kept
