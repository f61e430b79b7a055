"""What a backbone gives: the points of every level, from the input to the coarsest."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class PointLevels:
    """Points and features of a hierarchy. Entry 0 is the input.

    Attributes:
        xyz: (B, N_l, 3) of each level.
        features: (B, C_l, N_l); None for an input without features.
        indices: (B, N_l) of each level after the input, into the level before.
    """

    xyz: list[Tensor]
    features: list[Tensor | None]
    indices: list[Tensor] = field(default_factory=list)

    @classmethod
    def of_input(cls, points: Tensor) -> PointLevels:
        """The level of the input points (B, N, 3 + C)."""
        features = points[..., 3:].mT.contiguous() if points.shape[-1] > 3 else None
        return cls([points[..., :3].contiguous()], [features])

    def append(self, xyz: Tensor, features: Tensor, indices: Tensor) -> None:
        """Add a coarser level."""
        self.xyz.append(xyz)
        self.features.append(features)
        self.indices.append(indices)

    @property
    def kept(self) -> Tensor:
        """(B, N_last) indices of the last level's points in the input: later levels are the first points of earlier
        ones."""
        return self.indices[0][:, : self.xyz[-1].shape[1]]
