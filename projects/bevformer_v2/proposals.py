"""The two-stage variant: boxes of the perspective head become object queries (arXiv 2211.10439, section 3.5).

The authors published the one-stage model only. What the paper leaves open is decided here: the position of such a query
is a small network of the sine code of its reference point, its content a learned vector for each rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perception.layers.position_encoding import sine_features
from perception.ops.nms_rotated import nms_rotated

_EDGE = 1e-3  # shares of the detection range that a reference stays away from its border


@dataclass
class Proposals:
    """Boxes of the perspective head that become queries.

    Attributes:
        centers: (B, P, 3) in the (augmented) detection frame, metres, best first; without gradient.
    """

    centers: Tensor


class ProposalQueries(nn.Module):
    """Queries of proposals.

    Args:
        num_proposals: P, of each group.
        embed_dims: C.
        pc_range: lowest and highest x, y, z of the detection range, metres.
    """

    def __init__(self, num_proposals: int, embed_dims: int, pc_range: Sequence[float]) -> None:
        super().__init__()
        self.num_proposals, self.pc_range = num_proposals, tuple(pc_range)
        self.num_feats = embed_dims // 2
        self.content = nn.Embedding(num_proposals, embed_dims)
        self.position = nn.Sequential(
            nn.Linear(3 * self.num_feats, embed_dims), nn.ReLU(), nn.Linear(embed_dims, embed_dims)
        )

    def append_to_groups(
        self, content: Tensor, position: Tensor, reference: Tensor, proposals: Proposals, num_groups: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Each group's queries (B, groups * Q, ...) followed by those of the proposals, (B, groups * (Q + P), ...)."""
        centers = proposals.centers.detach().float()
        low, high = centers.new_tensor(self.pc_range).view(2, 3)
        places = ((centers - low) / (high - low)).clamp(_EDGE, 1 - _EDGE)
        code = sine_features(places * 2 * math.pi, self.num_feats).flatten(-2)
        own = (self.content.weight.expand(len(places), -1, -1), self.position(code), places)

        def append(learned: Tensor, new: Tensor) -> Tensor:
            parts = (learned.unflatten(1, (num_groups, -1)), new[:, None].expand(-1, num_groups, -1, -1).to(learned))
            return torch.cat(parts, 2).flatten(1, 2)

        return tuple(append(*pair) for pair in zip((content, position, reference), own))


def choose_proposals(
    boxes: Sequence[Tensor], scores: Sequence[Tensor], num_proposals: int, iou_threshold: float = 0.3
) -> Proposals:
    """The best boxes of all cameras that do not overlap as seen from above; the others fill up what is left.

    Args:
        boxes: of each sample (n, 7+) x, y, z, l, w, h, yaw in the detection frame.
        scores: (n,).
        num_proposals: P.
        iou_threshold: overlap above which the worse of two boxes counts as the same object.

    Returns:
        P centres a sample. Where a sample has fewer boxes, they are repeated; without any, the origin of the frame is.
    """
    centers = []
    for mine, rated in zip(boxes, scores):
        kept = nms_rotated(mine[:, [0, 1, 3, 4, 6]].float(), rated.float(), iou_threshold)
        suppressed = torch.ones_like(rated, dtype=torch.bool).index_fill(0, kept, False).nonzero()[:, 0]
        order = torch.cat([kept, suppressed[rated[suppressed].argsort(descending=True)]])
        ranked = mine[order, :3] if len(mine) else mine.new_zeros(1, 3)
        centers.append(ranked[torch.arange(num_proposals, device=mine.device) % len(ranked)])
    return Proposals(torch.stack(centers).detach())
