"""Whether the outlines of an object in images with alpha fit together, given the cameras.

The ray through a pixel at the rim of an object touches the object, so somewhere along it there is a point that other
views, one at least, show as object as well, and all that see it. Where an outline is too wide there is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from PIL import Image
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from perception.datasets.images import open_image
from perception.geometry.se3 import compose, invert, transform_points
from perception.studio.depth_range import DepthRange
from perception.studio.findings import Findings

VIEWS = 24  # that are compared with each other
FEWEST_VIEWS = 6
RIM = 80  # pixels of each outline that are looked at
FEWEST_RIM = 20
LARGEST_SIDE = 1024  # pixels, to which larger masks are reduced
FEWEST_DEPTHS = 192  # along a ray; with larger images as many as these have pixels
TOLERANCE = 1  # pixels
WIDE = 0.6  # share of an outline that the others confirm, below which it is too wide
WHOLE = 0.9  # share that outlines have which fit
OBJECT = 0.5  # alpha
NAMED = 4  # views, in a sentence


class Outlines(NamedTuple):
    """The share of the outlines' pixels that other views confirm, and the number of views."""

    confirmed: float
    views: int


def check_silhouettes(outputs: DataparserOutputs, depths: DepthRange, findings: Findings) -> Outlines | None:
    """Note images whose outlines do not fit those of the others.

    Args:
        outputs: a split whose images are whole.
        depths: between which the object lies.
        findings: a warning is added to it.

    Returns:
        ``None`` where there are no outlines: images without alpha, other cameras than pinholes, few views.
    """
    chosen = np.unique(np.linspace(0, len(outputs.image_filenames) - 1, VIEWS).astype(int)).tolist()
    cameras = outputs.cameras
    lenses = cameras.distortion_params is not None and bool(cameras.distortion_params.any())
    pinholes = bool((cameras.camera_type == CameraType.PERSPECTIVE.value).all())
    if len(chosen) < FEWEST_VIEWS or lenses or not pinholes:
        return None
    masks = []
    for view in chosen:
        mask = _mask(outputs, view)
        if mask is None:
            return None
        masks.append(mask)
    views = [_View(mask, cameras[view]) for view, mask in zip(chosen, masks)]
    shares = torch.tensor([_confirmed(number, views, depths) for number in range(len(views))])
    known = shares.isfinite()
    if int(known.sum()) < FEWEST_VIEWS:
        return None
    names = _short([outputs.image_filenames[view] for view in chosen])
    median = float(shares[known].median())
    if median >= WHOLE:
        wide = sorted((share, number) for number, share in enumerate(shares.tolist()) if share < WIDE)
        if wide:
            worst = ", ".join(f"{names[number]} ({share:.0%})" for share, number in wide[:NAMED])
            more = f" and {len(wide) - NAMED} more" if len(wide) > NAMED else ""
            findings.warn(
                f"{worst}{more} of {len(views)} images looked at show the object wider than the other views leave it "
                "(the share of their outline that these confirm): their alpha or their poses are wrong"
            )
    elif median < WIDE:
        sound = [names[number] for number in (shares >= WHOLE).nonzero()[:, 0].tolist()]
        narrow = ""
        if 0 < len(sound) <= len(views) // 3:
            narrow = f", or the object is too narrow in {', '.join(sound[:NAMED])}"
        findings.warn(
            f"the outlines of the object do not fit together (half the views find less than {median:.0%} of theirs "
            f"confirmed): focal lengths, poses or the range of depths are wrong{narrow}"
        )
    return Outlines(float(shares[known].mean()), int(known.sum()))


def _short(paths: list[Path]) -> list[str]:
    """Names of images, with their folders where files of different folders have one name."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [f"{path.parent.name}/{path.name}" for path in paths]


class _View:
    """An outline and its camera."""

    def __init__(self, mask: Tensor, camera: Cameras):
        self.mask = mask
        self.grown = max_pool2d(mask[None, None].float(), 2 * TOLERANCE + 1, 1, TOLERANCE)[0, 0] > 0
        height, width = mask.shape
        across, down = width / float(camera.width), height / float(camera.height)
        self.focal = torch.tensor([float(camera.fx) * across, float(camera.fy) * down])
        self.centre = torch.tensor([float(camera.cx) * across, float(camera.cy) * down])
        pose = camera.camera_to_worlds.double().reshape(3, 4)
        self.pose = compose(pose[:, :3], pose[:, 3]).float()
        self.from_world = invert(self.pose)

    def rim(self) -> Tensor:
        """Rows and columns (P, 2) of pixels of the object beside pixels that are none; at most some."""
        beside = max_pool2d(pad((~self.mask)[None, None].float(), (1, 1, 1, 1)), 3, 1)[0, 0] > 0
        pixels = (self.mask & beside).nonzero()
        return pixels[torch.linspace(0, len(pixels) - 1, min(RIM, len(pixels))).long()]

    def points(self, pixels: Tensor, depths: Tensor) -> Tensor:
        """Points (P, D, 3) of the scene at depths (D,) along the rays of pixels (P, 2)."""
        right, down = ((pixels.flip(-1) + 0.5 - self.centre) / self.focal).unbind(-1)
        rays = torch.stack([right, -down, -torch.ones_like(right)], -1)
        return transform_points(self.pose, rays[:, None] * depths[:, None])

    def look(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Whether points (..., 3) are shown, and whether as object, both (...)."""
        local = transform_points(self.from_world, points)
        depth = -local[..., 2]
        place = torch.stack([local[..., 0], -local[..., 1]], -1) / depth[..., None] * self.focal + self.centre
        column, row = place.floor().nan_to_num(-1, -1, -1).long().unbind(-1)
        height, width = self.mask.shape
        seen = (depth > 0) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return seen, seen & self.grown[row.clamp(0, height - 1), column.clamp(0, width - 1)]


def _confirmed(number: int, views: list[_View], depths: DepthRange) -> float:
    """The share of a view's outline that the others confirm; not a number where there is hardly any outline."""
    view = views[number]
    pixels = view.rim()
    if len(pixels) < FEWEST_RIM:
        return float("nan")
    steps = torch.linspace(depths.near, depths.far, max(FEWEST_DEPTHS, *view.mask.shape))
    points = view.points(pixels, steps).flatten(0, 1)  # (P * D, 3)
    rays = torch.arange(len(pixels)).repeat_interleave(len(steps))
    known = torch.zeros(len(points), dtype=torch.bool)  # close before a camera there may be points that no other sees
    for other in (other for place, other in enumerate(views) if place != number):
        seen, held = other.look(points)
        possible = held | ~seen
        points, rays, known = points[possible], rays[possible], (known | held)[possible]  # few are left soon
    return len(rays[known].unique()) / len(pixels)


def _mask(outputs: DataparserOutputs, view: int) -> Tensor | None:
    """Where an image shows the object, bool (h, w); ``None`` for one without transparent or without opaque pixels."""
    with open_image(outputs.image_filenames[view]) as image:
        if image.mode not in ("RGBA", "LA"):
            return None
        alpha = image.getchannel("A")
        share = LARGEST_SIDE / max(alpha.size)
        if share < 1:
            alpha = alpha.resize([max(1, round(side * share)) for side in alpha.size], Image.Resampling.BOX)
        mask = torch.from_numpy(np.array(alpha) > 255 * OBJECT)
    return None if bool(mask.all()) or not bool(mask.any()) else mask
