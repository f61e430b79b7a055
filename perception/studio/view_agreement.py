"""Whether neighbouring views show the same things where their cameras say so, and whether they would under another
reading of the poses.

Poses in another convention than the layout's are still rigid: nothing but the pictures tells. A plane sweep does: for
each pixel of a small picture, planes at many depths carry a neighbour's pixels there, and the best correlation of the
two surroundings counts. Under the right poses it is high wherever there is texture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from perception.datasets.images import open_image
from perception.geometry.se3 import compose, invert
from perception.studio.depth_range import DepthRange
from perception.studio.findings import Findings

SIDE = 72  # pixels, longer side of the pictures that are compared
LEAST_SIDE = 12  # pixels, shorter side below which a picture says nothing
PLANES = 24  # evenly spaced in inverse depth
WINDOW = 5  # pixels, side of the surroundings that are correlated
PAIRS = 6
WIDEST = 0.7  # cosine of the angle between viewing directions of neighbours
LEAST_SHARE = 0.3  # of the pixels that the neighbour sees
TEXTURE = 4e-4  # variance of grey values in a window, below which there is nothing to correlate
FEWEST = 40  # textured pixels of a pair that counts
NEAREST = 0.05  # of far, where near is 0

GAIN = 0.05  # of correlation, by which another reading must be better before it is spoken of
FEW_PAIRS, LARGE_GAIN = 3, 0.3  # with fewer pairs than these it must be so much better
GOOD = 0.6  # correlation that the other reading must reach
WINS = 0.8  # share of the pairs that must be better under it

Reading = Callable[[Tensor], Tensor]
"""From camera-to-world poses (N, 4, 4) with OpenGL axes, as the data parser understands a file, to what they would be
if the file meant something else."""

FLIP = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)


def _as_llff(poses: Tensor) -> Tensor:
    """The columns down, right, backwards and place of a file in LLFF layout."""
    return torch.stack([-poses[..., 1], poses[..., 0], poses[..., 2], poses[..., 3]], -1)


def _from_llff(columns: Tensor) -> Tensor:
    return torch.stack([columns[..., 1], -columns[..., 0], columns[..., 2], columns[..., 3]], -1)


READINGS: dict[str, Reading] = {
    "if the camera's axes were right, down, forwards (OpenCV)": lambda poses: poses * FLIP,
    "if the poses were world-to-camera": invert,
    "if the poses were world-to-camera with OpenCV axes, as COLMAP's": lambda poses: invert(poses) * FLIP,
}
LLFF_READINGS: dict[str, Reading] = {
    "if the columns were right, up, backwards": _as_llff,
    "if the columns were right, down, forwards (OpenCV)": lambda poses: _as_llff(poses) * FLIP,
    "if the poses were world-to-camera": lambda poses: _from_llff(invert(_as_llff(poses))),
    "if the poses were world-to-camera with OpenCV axes, as COLMAP's": lambda poses: invert(_as_llff(poses)) * FLIP,
}


class Agreement(NamedTuple):
    """Mean correlation over pairs of neighbours, -1 to 1, and how many pairs there were."""

    correlation: float
    pairs: int


def check_agreement(outputs: DataparserOutputs, depths: DepthRange, findings: Findings) -> Agreement | None:
    """Compare neighbouring views, and note another reading of the poses under which they agree better.

    Args:
        outputs: a split whose images are whole.
        depths: between which the scene lies.
        findings: a warning is added to it.

    Returns:
        ``None`` where there is nothing to compare: other cameras than pinholes, tiny pictures, no texture, views that
        do not see what the others do.
    """
    cameras = outputs.cameras
    if not bool((cameras.camera_type == CameraType.PERSPECTIVE.value).all()) or not 0 < depths.far < math.inf:
        return None
    scale = float(outputs.dataparser_scale)
    sweep = _Sweep(outputs, max(depths.near, NEAREST * depths.far) / scale, depths.far / scale)
    stated = _in_file(outputs)
    pairs = sweep.pairs(stated)
    scores = torch.tensor([sweep.correlation(stated, *pair) for pair in pairs])
    usable = scores.isfinite()
    found = Agreement(float(scores[usable].mean()), int(usable.sum())) if bool(usable.any()) else None
    readings = LLFF_READINGS if "llff" in outputs.metadata else READINGS
    others = {name: _gain(sweep, reading(stated), pairs, scores) for name, reading in readings.items()}
    name, best = max(others.items(), key=lambda item: item[1].correlation)
    gain = GAIN if best.pairs >= FEW_PAIRS else LARGE_GAIN
    if best.correlation >= max(GOOD, (found.correlation if found else -1.0) + gain):
        before = f"of {found.correlation:.2f}" if found else "of none, as they see nothing in common,"
        findings.warn(
            f"neighbouring images agree better (correlation {best.correlation:.2f} instead {before}) {name}: the poses "
            "seem to follow another convention than the layout's"
        )
    return found


def _gain(sweep: _Sweep, poses: Tensor, pairs: list[tuple[int, int]], stated: Tensor) -> Agreement:
    """What pairs correlate to under other poses; -1 where too few of them are better off."""
    scores = torch.tensor([sweep.correlation(poses, *pair) for pair in pairs])
    usable = scores.isfinite()
    better = scores > stated.nan_to_num(-1.0)  # views that see nothing in common agree in nothing
    if not bool(usable.any()) or float(better[usable].double().mean()) < WINS:
        return Agreement(-1.0, 0)
    return Agreement(float(scores[usable].mean()), int(usable.sum()))


def _in_file(outputs: DataparserOutputs) -> Tensor:
    """Camera-to-world poses (N, 4, 4), OpenGL axes, in the frame and the units of the scene's files."""
    poses = outputs.transform_poses_to_original_space(outputs.cameras.camera_to_worlds, camera_convention="opengl")
    return compose(poses[:, :3, :3].double(), poses[:, :3, 3].double())


class _Sweep:
    """Correlations of pairs of views."""

    def __init__(self, outputs: DataparserOutputs, near: float, far: float):
        self.names, self.cameras = outputs.image_filenames, outputs.cameras
        self.inverse_depths = torch.linspace(1 / near, 1 / far, PLANES)
        self._pictures: dict[int, Tensor] = {}

    def pairs(self, poses: Tensor) -> list[tuple[int, int]]:
        """Some views spread over all, each with the nearest one that looks about the same way."""
        places, forward = poses[:, :3, 3], -poses[:, :3, 2]
        distances = torch.cdist(places, places)
        distances[(forward @ forward.T < WIDEST) | (distances == 0)] = math.inf
        chosen = np.unique(np.linspace(0, len(places) - 1, PAIRS).astype(int)).tolist()
        return [(view, int(distances[view].argmin())) for view in chosen if bool(distances[view].isfinite().any())]

    def correlation(self, poses: Tensor, view: int, neighbour: int) -> float:
        """The mean over textured pixels of a view of the best correlation on any plane; not a number where too few are
        seen by the neighbour."""
        picture, other = self._picture(view), self._picture(neighbour)
        if min(*picture.shape, *other.shape) < LEAST_SIDE:
            return math.nan
        relative = (invert(poses[neighbour]) @ poses[view]).float()
        fx, fy, cx, cy = self._intrinsics(view, picture)
        row, column = torch.meshgrid(*(torch.arange(side) + 0.5 for side in picture.shape), indexing="ij")
        rays = torch.stack([(column - cx) / fx, -(row - cy) / fy, -torch.ones_like(row)], -1) @ relative[:3, :3].T
        points = rays / self.inverse_depths[:, None, None, None] + relative[:3, 3]  # (planes, H, W, 3)
        places, seen = self._project(points, neighbour, other)
        carried = grid_sample(
            other.expand(PLANES, 1, *other.shape), places, align_corners=False, padding_mode="border"
        )[:, 0]
        best = _correlate(picture, carried).masked_fill(~seen, -1.0).amax(0)
        textured = (_mean(picture[None] ** 2) - _mean(picture[None]) ** 2)[0] > TEXTURE
        counted = textured & seen.any(0)
        if int(counted.sum()) < FEWEST or float(seen.any(0).float().mean()) < LEAST_SHARE:
            return math.nan
        return float(best[counted].mean())

    def _project(self, points: Tensor, view: int, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Where points (..., 3) of a camera's frame lie in its picture, from -1 to 1, and whether they do."""
        fx, fy, cx, cy = self._intrinsics(view, picture)
        depth = (-points[..., 2]).clamp_min(1e-9)
        height, width = picture.shape
        right = 2 * (fx * points[..., 0] / depth + cx) / width - 1
        down = 2 * (cy - fy * points[..., 1] / depth) / height - 1
        seen = (points[..., 2] < 0) & (right.abs() < 1) & (down.abs() < 1)
        return torch.stack([right, down], -1).clamp(-2, 2), seen

    def _intrinsics(self, view: int, picture: Tensor) -> tuple[float, float, float, float]:
        camera: Cameras = self.cameras[view]
        across, down = picture.shape[1] / float(camera.width), picture.shape[0] / float(camera.height)
        return float(camera.fx) * across, float(camera.fy) * down, float(camera.cx) * across, float(camera.cy) * down

    def _picture(self, view: int) -> Tensor:
        """Grey values (h, w) in [0, 1] of an image made small, on white."""
        if view not in self._pictures:
            with open_image(self.names[view]) as image:
                if image.format == "JPEG":
                    image.draft("L", (2 * SIDE, 2 * SIDE))
                share = min(1.0, SIDE / max(image.size))
                size = tuple(max(1, round(side * share)) for side in image.size)
                pixels = image.convert("RGBA").resize(size, Image.Resampling.BOX)
            ground = Image.new("RGBA", pixels.size, "white")
            ground.alpha_composite(pixels)
            self._pictures[view] = torch.from_numpy(np.array(ground.convert("L"), dtype=np.float32) / 255)
        return self._pictures[view]


def _mean(pictures: Tensor) -> Tensor:
    """Means over the windows around all pixels of pictures (P, H, W)."""
    return avg_pool2d(pictures[:, None], WINDOW, 1, WINDOW // 2, count_include_pad=False)[:, 0]


def _correlate(picture: Tensor, others: Tensor) -> Tensor:
    """Correlations (P, H, W) of the surroundings of pixels (H, W) with those of others (P, H, W)."""
    mean, means = _mean(picture[None]), _mean(others)
    variance = (_mean(picture[None] ** 2) - mean**2).clamp_min(0)
    variances = (_mean(others**2) - means**2).clamp_min(0)
    return (_mean(picture * others) - mean * means) / ((variance * variances).sqrt() + 1e-4)
