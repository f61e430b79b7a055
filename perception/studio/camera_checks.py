"""What can be wrong with the cameras of a scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from perception.studio.coordinates import fit_single_precision
from perception.studio.depth_range import (
    DepthRange,
    camera_axes,
    camera_extent,
    common_point,
    corner_rays,
    depths_of_common_point,
    surrounding_range,
)
from perception.studio.errors import SceneError
from perception.studio.findings import Findings, counted
from perception.studio.transforms import check_pose

MIN_SHARE_FACING = 0.9  # of the cameras that must look towards the common point of an inward-facing scene
SQUARE_TOLERANCE = 0.1  # of the logarithm of the focal lengths' ratio
MOST_ASIDE = 80.0  # degrees off -z, beyond which a ray becomes useless in normalised device coordinates
MOST_SPREAD = 90.0  # degrees between two viewing directions of a forward-facing scene
NDC_NEAR = 1.0  # distance of the near plane, as of the methods that use these coordinates
MIN_SHARE_INSIDE = 0.5  # of the cameras whose near and far must enclose what they look at
ADVICE = "this method needs a bounded scene that the cameras surround (an object, or images masked to one)"


def check_cameras(cameras: Cameras, names: Sequence[Path]) -> None:
    """Raise unless all cameras have finite rigid poses and positive focal lengths, one for each image.

    Raises:
        SceneError: one has not, or they are too far from the origin.
    """
    count = len(cameras.camera_to_worlds.reshape(-1, *cameras.camera_to_worlds.shape[-2:]))
    if not len(names):
        raise SceneError("the scene has no training images")
    if count != len(names):
        raise SceneError(f"the scene has {len(names)} images but {count} camera poses")
    faults = []
    for name, pose, fx, fy in zip(
        names, cameras.camera_to_worlds.reshape(count, -1, 4), cameras.fx.reshape(-1), cameras.fy.reshape(-1)
    ):
        try:
            check_pose(pose, str(name))
        except SceneError as error:
            faults.append(str(error))
        if not all(bool(focal.isfinite()) and float(focal) > 0 for focal in (fx, fy)):
            faults.append(f"{name} has a focal length of {[float(fx), float(fy)]} pixels; it must be positive")
    if faults:
        raise SceneError(counted(faults))
    positions = camera_axes(cameras)[0].numpy()
    if not fit_single_precision(positions):
        raise SceneError(
            f"the cameras stand around {np.round(positions.mean(0)).tolist()}, where single precision cannot tell them "
            "apart: subtract that from all positions"
        )


def check_inward_facing(cameras: Cameras) -> None:
    """Raise unless the cameras look at a common region, as around an object.

    Raises:
        SceneError: they look outwards, or all in one direction.
    """
    positions, forward = camera_axes(cameras)
    if len(positions) == 1:
        raise SceneError(f"the scene has one training camera: {ADVICE}")
    if camera_extent(cameras) == 0:
        raise SceneError(f"the cameras all stand at one place: {ADVICE}")
    centre = common_point(positions, forward)
    if centre is None:
        raise SceneError(f"the cameras all look in one direction: {ADVICE}")
    share = float((((centre - positions) * forward).sum(-1) > 0).double().mean())
    if share < 1 - MIN_SHARE_FACING:
        raise SceneError(
            f"the cameras look away from each other, as in an unbounded scene: {ADVICE}; if they should look inwards, "
            "the poses may have OpenCV axes (y down, z forward), whose second and third column is to be negated"
        )
    if share < MIN_SHARE_FACING:
        raise SceneError(f"the cameras look away from each other, as in an unbounded scene: {ADVICE}")


def check_forward_facing(views: Sequence[DataparserOutputs]) -> None:
    """Raise unless the cameras of all splits look along -z and stand before the near plane of normalised device
    coordinates.

    Raises:
        SceneError: they do not; the sentence says by how much.
    """
    names = [name for outputs in views for name in outputs.image_filenames]
    positions, forward = (torch.cat(parts) for parts in zip(*(camera_axes(outputs.cameras) for outputs in views)))
    advice = "normalised device coordinates (NDC) need a forward-facing scene"
    widest = math.degrees(math.acos(min(1.0, max(-1.0, float((forward @ forward.T).min())))))
    if widest > MOST_SPREAD:
        raise SceneError(
            f"the viewing directions span {widest:.0f} degrees: {advice}; use a method for bounded scenes instead"
        )
    rays = torch.nn.functional.normalize(torch.cat([corner_rays(outputs.cameras) for outputs in views]), dim=-1)
    aside = torch.rad2deg((-rays[..., 2]).clamp(-1, 1).acos()).amax(1)
    if bool((aside > MOST_ASIDE).any()):
        worst = int(aside.argmax())
        raise SceneError(
            f"{names[worst]} sees up to {float(aside[worst]):.0f} degrees aside of -z: {advice} whose cameras look "
            "along -z, as `llff-data` puts them"
        )
    beyond = [name for name, place in zip(names, positions[:, 2].tolist()) if place <= -NDC_NEAR]
    if beyond:
        raise SceneError(
            counted([f"{name} stands behind the near plane at z = -1: {advice} before all cameras" for name in beyond])
        )


def check_depth_range(cameras: Cameras, depths: DepthRange, findings: Findings) -> None:
    """Note where near and far leave out what the cameras look at.

    Args:
        cameras: of the training views.
        depths: near and far in use.
        findings: what is wrong is added to it.
    """
    if not 0 <= depths.near < depths.far:
        findings.error(f"near ({depths.near:g}) must be at least 0 and below far ({depths.far:g})")
        return
    ahead = depths_of_common_point(cameras)
    if ahead is None or not bool((ahead > 0).any()):
        return
    ahead = ahead[ahead > 0]
    outside = (ahead <= depths.near) | (ahead >= depths.far)
    if not bool(outside.any()):
        return
    near, far = surrounding_range(cameras)
    sentence = (
        f"near {depths.near:.4g} and far {depths.far:.4g} leave out what {int(outside.sum())} of {len(ahead)} cameras "
        f"look at, {float(ahead.min()):.4g} to {float(ahead.max()):.4g} ahead of them: about {near:.3g} and {far:.3g} "
        "would enclose it (--pipeline.model.near, --pipeline.model.far, before the data parser's name)"
    )
    if float(outside.double().mean()) > MIN_SHARE_INSIDE:
        findings.error(sentence)
    else:
        findings.warn(sentence)


def check_projections(cameras: Cameras, names: Sequence[Path], findings: Findings) -> None:
    """Note principal points outside their images, and pixels that are far from square."""
    places = ((cameras.cx, cameras.width), (cameras.cy, cameras.height))
    outside = torch.stack([(place < 0) | (place > side) for place, side in places]).any(0).reshape(-1)
    findings.warn(
        *(
            f"{name} has its principal point at ({float(cx):g}, {float(cy):g}), outside the image"
            for name, cx, cy, is_outside in zip(names, cameras.cx.reshape(-1), cameras.cy.reshape(-1), outside)
            if bool(is_outside)
        )
    )
    findings.warn(
        *(
            f"{name} has the focal lengths {float(fx):.5g} and {float(fy):.5g} pixels, as if pixels were not square; "
            "Blender's angle_y, for one, is not the angle of the image"
            for name, fx, fy in zip(names, cameras.fx.reshape(-1), cameras.fy.reshape(-1))
            if abs(math.log(float(fx) / float(fy))) > SQUARE_TOLERANCE
        )
    )
