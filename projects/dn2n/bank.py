"""The views of scenes that targets are rendered from: cameras, images, near and far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from perception.geometry.cameras import switch_axes
from perception.studio.errors import SceneError
from perception.studio.images import FileStore
from projects.dn2n.features import MIN_SIDE
from projects.dn2n.projection import camera_vector

if TYPE_CHECKING:
    from projects.dn2n.offline import OfflineEdits

LLFF_RANGE = (0.9, 1.6)
"""What IBRNet multiplies the bounds of LLFF scenes with."""


class SceneSpan(NamedTuple):
    """One scene's views in the bank."""

    name: str
    start: int
    end: int  # exclusive
    near: float
    far: float


def camera_vectors(cameras: Cameras) -> Tensor:
    """Camera vectors (N, 34) of nerfstudio's cameras, whose pixel centres lie at halves and whose axes are OpenGL's.

    Raises:
        SceneError: a camera is no pinhole.
    """
    kinds = set(cameras.camera_type.flatten().tolist())
    lens = cameras.distortion_params
    if kinds != {CameraType.PERSPECTIVE.value} or (lens is not None and bool((lens != 0).any())):
        raise SceneError(
            "source views must come from pinhole cameras, but the scene states lens distortion or another projection: "
            "undistort the images (colmap image_undistorter, ns-process-data) first"
        )
    poses = cameras.camera_to_worlds.float().cpu()
    full = torch.eye(4).repeat(len(poses), 1, 1)
    full[:, :3] = poses
    intrinsics = torch.zeros(len(poses), 3, 3)
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = cameras.fx.flatten().float().cpu(), cameras.fy.flatten().float().cpu()
    intrinsics[:, 0, 2] = cameras.cx.flatten().float().cpu() - 0.5
    intrinsics[:, 1, 2] = cameras.cy.flatten().float().cpu() - 0.5
    intrinsics[:, 2, 2] = 1
    vectors = camera_vector(0, 0, intrinsics, switch_axes(full))
    vectors[:, 0], vectors[:, 1] = cameras.height.flatten().float().cpu(), cameras.width.flatten().float().cpu()
    return vectors


def poses_of(vectors: Tensor) -> Tensor:
    """Camera-to-world poses (N, 4, 4), OpenCV axes, of camera vectors (N, 34)."""
    return vectors[:, 18:34].unflatten(-1, (4, 4))


@dataclass
class EditedScene:
    """An edit of a scene's views: what is rendered from instead of the originals."""

    images: Tensor  # (K, 3, H, W) of the views that are kept
    views: list[int]  # their numbers within the scene


class SourceBank:
    """All training views of one or several scenes.

    Args:
        store: their pixels.
        cameras: of all views.
        background: (3,) behind transparent pixels.
        scenes: which views belong together, in order.

    Raises:
        SceneError: a scene's views differ in size or are too small, or a camera is no pinhole.
    """

    def __init__(self, store: FileStore, cameras: Cameras, background: Tensor, scenes: list[SceneSpan]):
        self.store, self.background, self.scenes = store, background, scenes
        self.cameras = camera_vectors(cameras)
        self.poses = poses_of(self.cameras)
        self.edits: dict[int, EditedScene] = {}
        self.offline: dict[int, OfflineEdits] = {}  # by scene
        for scene in scenes:
            sizes = {store.sizes[view] for view in range(scene.start, scene.end)}
            if len(sizes) > 1:
                raise SceneError(
                    f"the training images of {scene.name} have {len(sizes)} sizes, but source views need one: resize "
                    "them, with their intrinsics"
                )
            height, width = sizes.pop()
            if min(height, width) < MIN_SIDE:
                raise SceneError(
                    f"the images of {scene.name} are {width} x {height} pixels: the feature network needs at least "
                    f"{MIN_SIDE} on each side"
                )
            if scene.end - scene.start < 3:
                raise SceneError(
                    f"{scene.name} has {scene.end - scene.start} training views; rendering a view from others takes at "
                    "least 3"
                )
            if not 0 < scene.near < scene.far:
                raise SceneError(
                    f"near ({scene.near:g}) and far ({scene.far:g}) of {scene.name} must be positive and in this "
                    "order: set --pipeline.model.near and --pipeline.model.far"
                )

    def scene_of(self, view: int) -> int:
        """Number of the scene that a view belongs to."""
        return next(number for number, scene in enumerate(self.scenes) if scene.start <= view < scene.end)

    def image(self, view: int) -> Tensor:
        """One image (3, H, W) in [0, 1] on the background."""
        height, width = self.store.sizes[view]
        values = self.store.image(view).float() / 255  # (P, C)
        if values.shape[1] == 4:
            values = values[:, :3] * values[:, 3:] + self.background * (1 - values[:, 3:])
        return values.T.reshape(3, height, width)

    def images(self, views: list[int]) -> Tensor:
        """Images (V, 3, H, W) of views of one scene."""
        return torch.stack([self.image(view) for view in views])

    def source_views(self, scene: int) -> tuple[Tensor, Tensor]:
        """Images (V, 3, H, W) and cameras (V, 34) that a scene is rendered from: its edit's survivors if it has one."""
        span, edit = self.scenes[scene], self.edits.get(scene)
        if edit is None:
            return self.images(list(range(span.start, span.end))), self.cameras[span.start : span.end]
        return edit.images, self.cameras[span.start : span.end][edit.views]
