"""Poses without images: reading them, and which of them would make a useless picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from perception.studio.camera_paths import read_camera_path
from perception.studio.depth_range import camera_axes, common_point
from perception.studio.errors import SceneError
from perception.studio.intrinsics import make_cameras, stated_intrinsics
from perception.studio.transforms import frame_poses, is_number, read_json
from projects.activenerf.finished_run import FinishedRun
from projects.activenerf.scoring import ViewScore

FOCAL = {"fl_x", "fl_y", "camera_angle_x", "camera_angle_y", "x_fov", "y_fov"}
INSIDE = 0.5  # opacity right before a camera with which it counts as standing in something
BEFORE = 0.05  # of near, which is that far; what else is before the near plane may be fog that no image contradicts
MIN_OPACITY = 0.01  # mean of a picture that shows the scene at all
SAME_PLACE = 0.01  # of the training cameras' extent
SAME_AXIS = 0.9998  # cosine of a degree
STEPS = 8  # in which it is looked at


@dataclass(frozen=True)
class Candidates:
    """M poses that could be photographed."""

    names: list[str]
    cameras: Cameras
    """(M) in the frame of the run."""
    poses: Tensor
    """(M, 4, 4) as the file has them."""


def read_candidates(path: Path, run: FinishedRun) -> Candidates:
    """Read poses from a file like `transforms.json` (in the frame of the scene's files; images need not exist), or a
    camera path of nerfstudio's viewer (in that of the run).

    What the file does not state of a camera is that of the run's first view.

    Raises:
        SceneError: it is neither, or states what no camera has.
    """
    content = read_json(path)
    if "camera_path" in content:
        cameras = read_camera_path(path).eyes[0]
        bottom = torch.tensor([0.0, 0, 0, 1]).expand(len(cameras), 1, 4)
        poses = torch.cat([cameras.camera_to_worlds, bottom], 1)
        return Candidates([f"pose {number}" for number in range(len(cameras))], cameras, poses)
    if "frames" not in content:
        raise SceneError(f"{path} holds neither frames, as transforms.json does, nor the camera_path of a viewer")
    frames = content["frames"]
    if isinstance(frames, list):
        frames = [
            {"file_path": f"pose {number}", **frame} if isinstance(frame, dict) else frame
            for number, frame in enumerate(frames)
        ]
    poses = frame_poses(path, frames)
    first = run.cameras[0]
    own = {"fl_x": first.fx, "fl_y": first.fy, "cx": first.cx, "cy": first.cy}
    own = {name: float(value) for name, value in own.items()}
    size = {"w": int(first.width), "h": int(first.height)}
    made = []
    for number, frame in enumerate(frames):
        stated = content.keys() | frame.keys()
        meta = {**size, **content}
        if not FOCAL & stated:
            if {"w", "h"} & stated:
                raise SceneError(f"{path}: frame {number} states a size, but no focal length (fl_x or camera_angle_x)")
            meta |= own
        stated_size = [frame.get(side, meta[side]) for side in ("w", "h")]
        shape = stated_size if all(map(is_number, stated_size)) else size.values()
        width, height = map(int, shape)
        made.append(stated_intrinsics(meta, frame, (width, height), f"{path}: frame {number}"))
    names = [str(frame["file_path"]) for frame in frames]
    return Candidates(names, make_cameras(run.to_run(poses), made), poses)


def rejections(candidates: Candidates, scores: Sequence[ViewScore], run: FinishedRun) -> dict[int, str]:
    """Why pictures from some of the candidates would be useless; by number.

    Source: what users of such systems have run into; the paper takes any candidate.
    """
    found: dict[int, str] = {}
    places, axes = _axes(candidates.cameras)
    taken, taken_axes = _axes(run.cameras[torch.tensor(run.active)])
    extent = max(float(torch.cdist(taken, taken).max()), 1e-6)
    ndc = run.model.config.use_ndc
    near, far = run.model.depth_range.tolist()
    ahead = None if ndc else _ahead(candidates.cameras, run)
    inside = None if ndc else opacity_before(run, candidates.cameras)
    for number in range(len(candidates.names)):
        same = _same(places[number], axes[number], taken, taken_axes, extent)
        earlier = [other for other in range(number) if other not in found]
        twice = _same(places[number], axes[number], places[earlier], axes[earlier], extent)
        if candidates.cameras.camera_type[number] != CameraType.PERSPECTIVE.value:
            found[number] = "it is no perspective camera"
        elif ndc and float(axes[number, 2]) > -0.5:
            found[number] = "it does not look ahead (-z), as cameras of a forward-facing scene do"
        elif ahead is not None and not near < float(ahead[number]) < far:
            found[number] = (
                f"what the other cameras look at lies {float(ahead[number]):.3g} ahead of it, and the run sees from "
                f"{near:.3g} to {far:.3g}"
            )
        elif inside is not None and float(inside[number]) > INSIDE:
            found[number] = f"it stands in something (opacity {float(inside[number]):.2f} right before it)"
        elif scores[number].opacity < MIN_OPACITY:
            found[number] = f"it shows nothing of the scene (mean opacity {scores[number].opacity:.3f})"
        elif same is not None:
            found[number] = f"{run.names[run.active[same]]} has been taken from there"
        elif twice is not None:
            found[number] = f"it is the same view as {candidates.names[earlier[twice]]}"
    return found


@torch.no_grad()
def opacity_before(run: FinishedRun, cameras: Cameras) -> Tensor:
    """Opacity (M,) of the scene right before cameras, along the viewing axis.

    Only what most training views see counts: elsewhere nothing has taught the network that space is empty.
    """
    places, axes = _axes(cameras)
    near, far = run.model.depth_range.tolist()
    reach = BEFORE * near
    ways = torch.linspace(0, reach, STEPS)
    points = places[:, None] + axes[:, None] * ways[:, None]  # (M, STEPS, 3)
    taken, taken_axes = _axes(run.cameras[torch.tensor(run.active)])
    depths = ((points[:, :, None] - taken) * taken_axes).sum(-1)  # (M, STEPS, views)
    known = ((depths > near) & (depths < far)).float().mean(-1) > 0.5
    points = points.to(run.model.device)
    raw = run.model.field_fine(points, axes[:, None].expand_as(points).to(points))
    return 1 - torch.exp(-(raw[..., 3].relu().cpu() * known).mean(-1) * reach)


def _ahead(cameras: Cameras, run: FinishedRun) -> Tensor | None:
    """How far ahead of each camera (M,) the point lies that the training cameras look at, if there is one."""
    centre = common_point(*camera_axes(run.cameras[torch.tensor(run.active)]))
    if centre is None:
        return None
    places, axes = camera_axes(cameras)
    return ((centre - places) * axes).sum(-1)


def _axes(cameras: Cameras) -> tuple[Tensor, Tensor]:
    poses = cameras.camera_to_worlds.float()
    return poses[:, :, 3], -poses[:, :, 2]


def _same(place: Tensor, axis: Tensor, places: Tensor, axes: Tensor, extent: float) -> int | None:
    """Which of some cameras stands in the same place and looks the same way."""
    alike = ((places - place).norm(dim=-1) < SAME_PLACE * extent) & (axes @ axis > SAME_AXIS)
    return int(alike.nonzero()[0]) if bool(alike.any()) else None
