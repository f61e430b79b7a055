"""What nerfstudio's exporters and makers of camera paths ask of a data manager."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.utils.dataloaders import RandIndicesEvalDataloader
from torch import Tensor


@dataclass
class BatchSize:
    """Stands for a data manager's pixel sampler: `ns-export` sets its number of rays."""

    num_rays_per_batch: int


class PathEvalDataloader(RandIndicesEvalDataloader):
    """Evaluation images whose cameras have one precision: nerfstudio starts spirals at one of them, and multiplies its
    pose with its focal length, which some data parsers give in double precision."""

    def get_camera(self, image_idx: int = 0) -> tuple[Cameras, dict]:
        """Camera (1) and image of a view."""
        camera, batch = super().get_camera(image_idx)
        return single_precision(camera), batch


def rays_within_pixels(cameras: Cameras, indices: Tensor, places: Tensor) -> RayBundle:
    """Rays (N) through given places of pixels. Through centres alone, a cloud of more points than pixels would hold
    copies, and what removes outliers by the distance to neighbours would remove them all.

    Args:
        cameras: of all images.
        indices: (N, 3) camera, row and column.
        places: (N, 2) down and to the right within the pixel, in [0, 1).
    """
    return cameras.generate_rays(camera_indices=indices[:, :1], coords=indices[:, 1:] + places.to(indices.device))


def single_precision(cameras: Cameras) -> Cameras:
    """The same cameras with poses and intrinsics in float32."""
    parts = {
        name: value.float()
        for name in ("camera_to_worlds", "fx", "fy", "cx", "cy", "distortion_params", "times")
        if isinstance(value := getattr(cameras, name), torch.Tensor)
    }
    return replace(cameras, **parts)
