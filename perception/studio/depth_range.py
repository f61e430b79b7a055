"""Where the cameras of a scene look, and between which depths it lies."""

from __future__ import annotations

from typing import NamedTuple

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig, DataparserOutputs
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from torch import Tensor

BLENDER_RANGE = (2.0, 6.0)  # near and far of the synthetic NeRF scenes, whose cameras are 4 from the object
BLENDER_MEDIAN = (3.4, 4.6)  # median distance of the cameras from the object, with which that range is kept
BLENDER_DISTANCES = (2.5, 5.2)  # smallest and largest one
NEAR_SHARE = 0.05  # of far, where the scene does not say
REACH = 0.5  # of the object around the point that the cameras look at, as a share of their distance
FAR_MARGIN = 1.25  # far over the largest distance of that point, below which the object is surely cut


class DepthRange(NamedTuple):
    """Depths along the viewing axis, in the units of the poses."""

    near: float
    far: float
    reason: str
    """Where the numbers come from."""


def camera_axes(cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Positions and viewing directions (N, 3) in double precision; directions have length 1."""
    poses = cameras.camera_to_worlds.reshape(-1, *cameras.camera_to_worlds.shape[-2:]).double().cpu()
    return poses[:, :3, 3], torch.nn.functional.normalize(-poses[:, :3, 2], dim=-1)


def corner_rays(cameras: Cameras) -> Tensor:
    """Directions (N, 4, 3) through the corners of each image, once around it, in the scene's frame and in double
    precision; they have length 1 along the viewing axis. Lenses count as pinholes.
    """
    poses = cameras.camera_to_worlds.reshape(-1, *cameras.camera_to_worlds.shape[-2:]).double().cpu()
    fx, fy, cx, cy, width, height = (
        part.double().cpu().reshape(-1)
        for part in (cameras.fx, cameras.fy, cameras.cx, cameras.cy, cameras.width, cameras.height)
    )
    corners = [
        torch.stack([(across * width - cx) / fx, -(down * height - cy) / fy, -torch.ones_like(fx)], -1)
        for across, down in ((0, 0), (1, 0), (1, 1), (0, 1))
    ]
    return torch.stack(corners, 1) @ poses[:, :, :3].transpose(1, 2)


def common_point(positions: Tensor, forward: Tensor) -> Tensor | None:
    """The point (3,) nearest to all viewing axes in the least-squares sense.

    Returns:
        ``None`` where the axes are parallel or there is only one.
    """
    across = torch.eye(3, dtype=torch.float64) - forward[:, :, None] * forward[:, None, :]  # (N, 3, 3)
    system = across.sum(0)
    if len(positions) < 2 or float(torch.linalg.eigvalsh(system)[0]) < 1e-3 * len(positions):
        return None
    return torch.linalg.solve(system, (across @ positions[..., None]).sum(0))[:, 0]


def depths_of_common_point(cameras: Cameras) -> Tensor | None:
    """How far ahead of each camera (N,) the common point lies; ``None`` where there is none."""
    positions, forward = camera_axes(cameras)
    centre = common_point(positions, forward)
    return None if centre is None else ((centre - positions) * forward).sum(-1)


def surrounding_range(cameras: Cameras) -> tuple[float, float]:
    """Near and far around what the cameras look at: half their distance before and behind the common point.

    Where there is no such point in front of them, far is the largest distance between two cameras.
    """
    depths = depths_of_common_point(cameras)
    if depths is None or not bool((depths > 0).any()):
        far = camera_extent(cameras)
        return NEAR_SHARE * far, far
    depths = depths[depths > 0]
    reach = REACH * float(depths.median())
    return max(float(depths.min()) - reach, NEAR_SHARE * float(depths.min())), float(depths.max()) + reach


def camera_extent(cameras: Cameras) -> float:
    """The largest distance between two cameras."""
    centres = cameras.camera_to_worlds[:, :3, 3]
    return float(torch.cdist(centres, centres).max())


def camera_far(cameras: Cameras) -> tuple[float, str]:
    """Far as DirectVoxGO takes it from the cameras, and the rule.

    It is the largest distance between two of them; where they stand so close together that what they look at lies
    about there or behind, far reaches half their distance beyond it.
    """
    extent, depths = camera_extent(cameras), depths_of_common_point(cameras)
    if depths is None or not bool((depths > 0).all()) or extent >= FAR_MARGIN * float(depths.max()):
        return extent, "far is the largest distance between two cameras"
    return surrounding_range(cameras)[1], "far lies half the cameras' distance beyond what they look at"


def find_depth_range(
    parser: DataParserConfig, train: DataparserOutputs, near: float | None = None, far: float | None = None
) -> DepthRange:
    """Near and far of a scene.

    What the method's settings say goes before what the scene's files or parser say. Blender layout: 2 and 6 (times
    the parser's scale factor) where the cameras stand as in the synthetic NeRF scenes, else half their distance to
    either side of what they look at. Other layouts: see :func:`camera_far`; near is 0.05 far.

    Args:
        parser: settings of the data parser.
        train: the training views.
        near, far: the method's settings.
    """
    if isinstance(parser, BlenderDataParserConfig):
        found = _blender_range(train.cameras, parser.scale_factor)
    else:
        widest, rule = camera_far(train.cameras)
        widest = float(train.metadata.get("far", widest))
        found = DepthRange(NEAR_SHARE * widest, widest, rule)
    stated = {key: train.metadata[key] for key in ("near", "far") if train.metadata.get(key) is not None}
    if stated:
        found = found._replace(**stated, reason="the scene's files or data parser say so")
    set_here = {key: value for key, value in (("near", near), ("far", far)) if value is not None}
    return found._replace(**set_here, reason="the settings say so") if set_here else found


def _blender_range(cameras: Cameras, scale: float) -> DepthRange:
    kept = DepthRange(*(bound * scale for bound in BLENDER_RANGE), "Blender layout")
    depths = depths_of_common_point(cameras)
    if depths is None or not bool((depths > 0).any()):
        return kept
    depths = depths[depths > 0] / scale
    median = float(depths.median())
    ordinary = BLENDER_MEDIAN[0] <= median <= BLENDER_MEDIAN[1]
    if ordinary and float(depths.min()) >= BLENDER_DISTANCES[0] and float(depths.max()) <= BLENDER_DISTANCES[1]:
        return kept
    near, far = surrounding_range(cameras)
    distances = spread(depths * scale)
    return DepthRange(
        near, far, f"the cameras are {distances} from what they look at, not about 4 as in Blender layout"
    )


def spread(values: Tensor) -> str:
    """The range of some numbers, to be printed."""
    low, high = float(values.min()), float(values.max())
    return f"{low:.4g}" if high - low < 1e-3 * abs(high) else f"{low:.4g} to {high:.4g}"


def frustum_box(cameras: Cameras, near: float, far: float) -> Tensor:
    """The box (2, 3) around what all cameras see between two depths."""
    places, rays = cameras.camera_to_worlds[:, None, :, 3], corner_rays(cameras).float()
    ends = torch.cat([places + depth * rays for depth in (near, far)]).reshape(-1, 3)
    return torch.stack([ends.amin(0), ends.amax(0)])
