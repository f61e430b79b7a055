"""What the trained model says of views that nobody has taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle

from perception.studio.progress import progress_bar
from projects.activenerf.acquisition import information_gain

if TYPE_CHECKING:
    from projects.activenerf.model import ActiveNerfModel


class ViewScore(NamedTuple):
    """Of one view."""

    total: float
    """The reduction of the variance, summed over its rays and their samples: the published score."""
    rays: int
    opacity: float
    """Mean over its rays."""

    @property
    def mean(self) -> float:
        """The reduction per ray, which does not grow with the size of the image. Among views of one size both rank
        alike."""
        return self.total / self.rays


@torch.no_grad()
def score_views(model: ActiveNerfModel, cameras: Cameras, stride: int) -> list[ViewScore]:
    """Score views by their poses alone.

    Args:
        model: trained.
        cameras: (N) in the frame of the model.
        stride: only every so-manieth row and column is looked at.
    """
    was_training = model.training
    model.eval()
    with progress_bar("Scoring candidates", len(cameras)) as advance:
        scores = []
        for number in range(len(cameras)):
            scores.append(_score(model, cameras[number : number + 1], stride))
            advance()
    model.train(was_training)
    return scores


def _score(model: ActiveNerfModel, camera: Cameras, stride: int) -> ViewScore:
    total, opacity, rays = 0.0, 0.0, 0
    for chunk in camera_rays(model, camera, stride):
        fine = model.render(chunk).fine
        total += float(information_gain(fine.weights, fine.beta2).sum())
        opacity += float(fine.acc.sum())
        rays += len(fine.acc)
    return ViewScore(total, rays, opacity / rays)


def camera_rays(model: ActiveNerfModel, camera: Cameras, stride: int) -> Iterator[RayBundle]:
    """The rays through every ``stride``-th row and column of a camera (1), as the model sees them, in chunks."""
    camera = model.seen_by(camera).to(model.device)
    coords = camera.get_image_coords()[: int(camera.height), : int(camera.width)][::stride, ::stride].to(model.device)
    rays = camera.generate_rays(camera_indices=0, coords=coords).flatten()
    for start in range(0, len(rays), model.config.eval_num_rays_per_chunk):
        yield rays[start : start + model.config.eval_num_rays_per_chunk]


def legacy_camera(camera: Cameras) -> Cameras:
    """Cameras whose rays go through the upper left corners of pixels, as NeRF's first code has them."""
    return replace(camera, cx=camera.cx + 0.5, cy=camera.cy + 0.5)
