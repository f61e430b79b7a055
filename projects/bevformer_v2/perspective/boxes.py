"""3D boxes in a camera's frame, as the perspective head predicts them (DD3D, arXiv 2108.06417, section 3).

The camera's frame is x right, y down, z forward, metres. A box's own x runs along its length, y along its width, z
along its height. Quaternions are (w, x, y, z); sizes (w, l, h). Notation: n boxes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from perception.geometry.se3 import matrix_to_quaternion, quaternion_to_matrix

_SIGNS = (
    *((1, 1, 1), (1, -1, 1), (1, -1, -1), (1, 1, -1)),
    *((-1, 1, 1), (-1, -1, 1), (-1, -1, -1), (-1, 1, -1)),
)
_EPS = 1e-7
COMPONENTS = ("quat", "proj_ctr", "depth", "size")
"""What a box is made of, in the names of DD3D."""


@dataclass
class CameraBoxes:
    """Boxes as what an image shows of them.

    Attributes:
        quat: (n, 4) of the box in the camera's frame.
        proj_ctr: (n, 2) u, v of the centre, pixels.
        depth: (n, 1) of the centre along the viewing axis, metres.
        size: (n, 3) w, l, h.
        inverse_intrinsics: (n, 3, 3).
    """

    quat: Tensor
    proj_ctr: Tensor
    depth: Tensor
    size: Tensor
    inverse_intrinsics: Tensor

    def centers(self) -> Tensor:
        """(n, 3) in the camera's frame."""
        return rays(self.proj_ctr, self.inverse_intrinsics) * self.depth

    def corners(self) -> Tensor:
        """(n, 8, 3) in the camera's frame, in the devkit's order."""
        half = self.size[:, None, [1, 0, 2]] * self.size.new_tensor(_SIGNS) / 2  # n, 8, (l, w, h)
        return (quaternion_to_matrix(self.quat)[:, None] * half[:, :, None]).sum(-1) + self.centers()[:, None]

    def substitute(self, component: str, other: CameraBoxes) -> CameraBoxes:
        """These boxes with one component of other ones."""
        return replace(self, **{component: getattr(other, component)})

    def __getitem__(self, index: Tensor) -> CameraBoxes:
        """Some of the boxes."""
        return CameraBoxes(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


@dataclass(frozen=True)
class BoxDecoding:
    """How numbers become boxes.

    Attributes:
        min_depth, max_depth: metres, to which depths are clamped.
        focal_length_factor: a raw depth is that of a camera whose pixels have the size 1 / factor.
        canonical_sizes: (w, l, h) of each class; a size is between none and twice that.
    """

    canonical_sizes: tuple[tuple[float, float, float], ...]
    min_depth: float = 0.1
    max_depth: float = 80.0
    focal_length_factor: float = 500.0

    def __call__(
        self,
        quat: Tensor,
        ctr: Tensor,
        depth: Tensor,
        size: Tensor,
        labels: Tensor,
        locations: Tensor,
        inverse_intrinsics: Tensor,
    ) -> CameraBoxes:
        """Boxes of raw predictions.

        Args:
            quat: (n, 4) of any length; of the box as seen along the ray through its centre (allocentric).
            ctr: (n, 2) from the location to the projected centre, pixels.
            depth: (n,) metres at the factor's focal length.
            size: (n, 3) logit-like, 0 at the class's canonical size.
            labels: (n,) int64.
            locations: (n, 2) u, v, pixels.
            inverse_intrinsics: (n, 3, 3) of the image that the head saw.
        """
        quat = quat / quat.norm(dim=1, keepdim=True).clamp(min=_EPS)
        quat = quat / quat.norm(dim=1, keepdim=True).clamp(min=_EPS)  # again, for the last digits
        pixel = torch.stack([inverse_intrinsics[:, 0, 0], inverse_intrinsics[:, 1, 1]], 1).norm(dim=1)
        metres = (depth / (pixel * self.focal_length_factor)).clamp(self.min_depth, self.max_depth)
        proj_ctr = locations + ctr
        canonical = size.new_tensor(self.canonical_sizes)[labels]
        return CameraBoxes(
            allocentric_to_egocentric(quat, proj_ctr, inverse_intrinsics),
            proj_ctr,
            metres[:, None],
            (size.tanh() + 1) * canonical,
            inverse_intrinsics,
        )


def rays(pixels: Tensor, inverse_intrinsics: Tensor) -> Tensor:
    """Directions (n, 3) of pixels (n, 2) with z = 1."""
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[:, :1])], 1)
    return (inverse_intrinsics * homogeneous[:, None]).sum(-1)


def allocentric_to_egocentric(quat: Tensor, proj_ctr: Tensor, inverse_intrinsics: Tensor) -> Tensor:
    """Orientation in the camera's frame of what has an orientation relative to its own viewing ray.

    Args:
        quat: (n, 4) unit.
        proj_ctr: (n, 2) pixel of the ray.
        inverse_intrinsics: (n, 3, 3).

    Returns:
        (n, 4) unit.
    """
    z = torch.nn.functional.normalize(rays(proj_ctr, inverse_intrinsics), dim=1)
    down = z.new_tensor([0.0, 1.0, 0.0])
    y = torch.nn.functional.normalize(down - z[:, 1:2] * z, dim=1)
    x = torch.linalg.cross(y, z)
    looking = torch.stack([x, y, z], -1)
    # Sums of products, which no setting computes in TF32 as it would a matrix product.
    return matrix_to_quaternion((looking[..., None] * quaternion_to_matrix(quat)[:, None]).sum(-2))
