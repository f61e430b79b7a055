"""The command `imrc`: how well the geometry of a trained run fits its images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from perception.engine.atomic import output_folder, replacing
from perception.engine.errors import UserError, run_cli
from perception.evaluation.imrc import Background, Box, Imrc, Views, background_images, imrc
from perception.radiance.sparse_grid import BASES
from perception.studio.checkpoints import latest_checkpoint, read_run
from perception.studio.density import density_model, density_volume, grid_size
from perception.studio.errors import SceneError
from perception.studio.progress import progress_bar

LARGEST = 1024  # voxels along a side
OPENCV = (1.0, -1.0, -1.0)  # axes of cameras
LABELS = ("opacity of a voxel", "residual colour (root mean square)")
DOWNWARDS = (1.0, -1.0, 1.0)  # of normalised device coordinates


@dataclass
class Settings:
    """Score the density of a trained run by its images: inverse mean residual colour, in dB, higher is better.

    Writes imrc.json (score and settings), imrc.npz (density, residual and weight of each voxel) and imrc.png (slices)
    into a folder. Compare scores of one scene at the same box, resolution, views and background.
    """

    load_config: Path
    """The run's config.yml."""
    out: Path = Path("imrc")
    """Folder to write."""
    resolution: int = 128
    """Voxels along the longest side of the box."""
    box: tuple[float, float, float, float, float, float] | None = None
    """Corners of what is scored, least x, y, z, then greatest, in the coordinates of the run. By default its scene box;
    of forward-facing methods that of the field, in normalised device coordinates."""
    views: Literal["test", "val", "train", "all"] = "test"
    """Whose images are used; all is train and test."""
    background: Background | None = None
    """What lies behind transparent pixels; high-frequency gives every second view the complement of the run's, so that
    density in empty space is punished. By default high-frequency where all images have alpha."""
    near_clip: float = 0.0
    """Distance from cameras within which they see nothing: no voxel, and none that hides others."""
    metrics: Path | None = None
    """File that ns-eval has written: the score is added to its results as imrc."""


class Scored(NamedTuple):
    """A run and what it was scored by."""

    density: Tensor  # (X, Y, Z)
    box: Tensor  # (2, 3) of the density, as the method has it
    result: Imrc
    ndc: tuple[float, float] | None
    background: str
    views: int
    scale: float  # of the run's coordinates to those of the scene's files


def main() -> None:
    """Entry point of the console script."""
    run_cli(lambda: run(tyro.cli(Settings)))


def run(settings: Settings) -> None:
    """Score a run and write what was found.

    Raises:
        UserError: there is no such run, or it cannot be scored so.
    """
    _check(settings)
    config = read_run(settings.load_config)
    latest_checkpoint(config.get_checkpoint_dir())
    results = None if settings.metrics is None else _read_metrics(settings.metrics)
    output_folder(settings.out)
    pipeline = _load(settings.load_config)
    found = score(pipeline, config.method_name, settings)
    write(found, config.method_name, settings)
    if results is not None:
        results["results"]["imrc"] = found.result.score
        with replacing(settings.metrics) as file:
            file.write((json.dumps(results, indent=2) + "\n").encode())
    size = " x ".join(map(str, found.density.shape))
    print(f"IMRC {found.result.score:.3f} dB: {size} voxels, {found.views} views; {settings.out}")


def score(pipeline: Any, method: str, settings: Settings) -> Scored:
    """Score a pipeline.

    Args:
        pipeline: with a :class:`~perception.studio.datamanager.RayDataManager` and a model that has a density.
        method: its name.
        settings: of the command.

    Raises:
        SceneError: the method has no density, or the views are none that can be used.
    """
    model = density_model(pipeline.model, method)
    space = model.density_space()
    box = space.box.cpu().float() if settings.box is None else torch.tensor(settings.box).view(2, 3)
    volume = density_volume(model, box, grid_size(box, settings.resolution), pipeline.device)
    pictures, cameras = _pictures(pipeline, settings.views)
    _check_number(len(pictures), settings.views)
    background, images = _placed(pictures, settings.background, pipeline.datamanager.background)
    cameras = pipeline.model.seen_by(cameras) if hasattr(pipeline.model, "seen_by") else cameras
    ndc = None if space.ndc is None else (space.ndc.x_scale, space.ndc.y_scale)
    views = Views(images, _intrinsics(cameras), _poses(cameras, turn_world=ndc is not None))
    turn = torch.tensor(DOWNWARDS if ndc else (1.0, 1.0, 1.0))
    turned = volume.flip(1) if ndc else volume
    region = Box(box.mean(0) * turn, (box[1] - box[0]) / 2)
    try:
        with progress_bar("Fitting colours", int((volume > 0).sum())) as advance:
            found = imrc(turned, region, views, near_clip=settings.near_clip, ndc=ndc, progress=advance)
    except ValueError as error:
        raise SceneError(str(error)) from None
    if ndc:
        found = found._replace(residual=found.residual.flip(1), weight=found.weight.flip(1))
    scale = float(pipeline.datamanager.train_dataparser_outputs.dataparser_scale)
    return Scored(volume, box, found, ndc, background, len(images), scale)


def write(found: Scored, method: str, settings: Settings) -> None:
    """Write `imrc.json`, `imrc.npz` and `imrc.png` into the folder of the settings."""
    units = "normalised device coordinates" if found.ndc else "the run's coordinates"
    described = {
        "imrc": found.result.score,
        "method": method,
        "box": found.box.tolist(),
        "coordinates": units,
        "size": list(found.density.shape),
        "views": settings.views,
        "num_views": found.views,
        "background": found.background,
        "near_clip": settings.near_clip,
        "load_config": settings.load_config.as_posix(),
    }
    with replacing(settings.out / "imrc.npz") as file:
        np.savez_compressed(
            file,
            density=found.density.numpy(),
            residual=found.result.residual.numpy(),
            weight=found.result.weight.numpy(),
            box=found.box.numpy(),
            scale=found.scale,
            unit=f"density in 1 / unit of {units}; times scale in 1 / unit of the scene's files",
        )
    draw(found, settings.out / "imrc.png")
    with replacing(settings.out / "imrc.json") as file:
        file.write((json.dumps(described, indent=2) + "\n").encode())


def draw(found: Scored, path: Path) -> None:
    """Slices across the axes through the middle of what cameras see: opacity of a voxel above, its residual colour
    below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    weight, low, high = found.result.weight, *found.box
    edges = (high - low) / torch.tensor(found.density.shape)
    opacity = -torch.expm1(-found.density * float(edges[0]))
    colour = (found.result.residual / (3 * weight).clamp(min=1e-9)).sqrt()
    colour = torch.where(weight > 0, colour, torch.nan)
    figure = Figure(figsize=(13, 8), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(2, 3)
    figure.suptitle(f"IMRC {found.result.score:.2f} dB, {found.views} views")
    for axis, name in enumerate("xyz"):
        right, up = (other for other in range(3) if other != axis)
        seen = weight.double().sum((right, up))
        number = int((seen * torch.arange(len(seen))).sum() / seen.sum().clamp(min=1e-9))
        extent = (float(low[right]), float(high[right]), float(low[up]), float(high[up]))
        place = float(low[axis] + (number + 0.5) * edges[axis])
        for row, volume, brightest, label in zip(rows, (opacity, colour), (1.0, 0.5), LABELS):
            shown = row[axis].imshow(
                volume.select(axis, number).T.numpy(), origin="lower", extent=extent, vmin=0, vmax=brightest
            )
            row[axis].set(xlabel="xyz"[right], ylabel="xyz"[up], title=f"{name} = {place:.3g}", facecolor="lightgrey")
            if axis == 2:
                figure.colorbar(shown, ax=row, label=label)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=80)


# The views of a run


def _pictures(pipeline: Any, views: str) -> tuple[list[Tensor], Cameras]:
    """Images (H, W, 3 or 4) from 0 to 1, and their cameras (Q)."""
    manager, pictures, parts = pipeline.datamanager, [], []
    for split in ("train", "test") if views == "all" else (views,):
        dataset = manager.train_dataset if split == "train" else manager.split_dataset(split)
        if hasattr(pipeline.model, "frame"):  # of a video
            dataset.frame = int(pipeline.model.frame)
        if dataset.metadata.get("mask_filenames") or getattr(dataset, "mask_filenames", None):
            print(f"the masks of the {split} views are not looked at")
        cameras = dataset.cameras
        _check_cameras(cameras, split)
        for number in range(len(dataset)):
            pictures.append(torch.from_numpy(np.ascontiguousarray(dataset.get_numpy_image(number))).float() / 255)
        parts.append(cameras)
    return pictures, parts[0] if len(parts) == 1 else _joined(parts)


def _check_number(count: int, views: str) -> None:
    """A fit leaves nothing of what a single view shows, and little of a few."""
    if count < 2:
        more = "score a run with more of them" if views == "all" else "take --views all"
        raise SceneError(f"--views {views}: what {count} view shows fits any geometry: {more}")
    if count <= BASES:
        print(f"warning: {BASES} coefficients are fitted to each voxel, and there are {count} views: the score is high")


def _joined(parts: Sequence[Cameras]) -> Cameras:
    names = ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height")
    tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return Cameras(**tensors, camera_type=CameraType.PERSPECTIVE)


def _check_cameras(cameras: Cameras, split: str) -> None:
    if not bool((cameras.camera_type == CameraType.PERSPECTIVE.value).all()):
        raise SceneError(f"the {split} views are not all of perspective cameras, which the score needs")
    if cameras.distortion_params is not None and bool((cameras.distortion_params != 0).any()):
        raise SceneError(f"the {split} views have lens distortion: score a scene of undistorted images")


def _placed(pictures: list[Tensor], background: Background | None, normal: Tensor) -> tuple[str, list[Tensor]]:
    """The background and images (H, W, 3)."""
    opaque = sum(picture.shape[-1] < 4 for picture in pictures)
    if background is None:
        background = "high-frequency" if not opaque else "white" if float(normal.mean()) > 0.5 else "black"
    elif opaque:
        raise SceneError(f"--background {background}: {opaque} of {len(pictures)} images have no alpha: leave it out")
    if opaque == len(pictures):
        return "none", [picture[..., :3] for picture in pictures]
    full = [p if p.shape[-1] == 4 else torch.cat([p, torch.ones_like(p[..., :1])], -1) for p in pictures]
    return background, background_images(full, background, normal="white" if float(normal.mean()) > 0.5 else "black")


def _intrinsics(cameras: Cameras) -> Tensor:
    """Matrices (Q, 3, 3) for which whole numbers are the centres of pixels; nerfstudio's are their corners."""
    matrices = torch.eye(3).repeat(len(cameras.fx), 1, 1)
    for (row, column), name in (((0, 0), "fx"), ((1, 1), "fy"), ((0, 2), "cx"), ((1, 2), "cy")):
        matrices[:, row, column] = getattr(cameras, name)[:, 0].float() - (0.5 if column == 2 else 0)
    return matrices


def _poses(cameras: Cameras, *, turn_world: bool) -> Tensor:
    """Camera to world (Q, 3, 4), OpenCV axes; of the world as well where it is turned."""
    poses = cameras.camera_to_worlds.float().clone()
    axes = poses.new_tensor(OPENCV)
    poses[..., :3] *= axes
    return poses * axes[:, None] if turn_world else poses


# Settings


def _check(settings: Settings) -> None:
    if not 2 <= settings.resolution <= LARGEST:
        raise UserError(f"--resolution must be from 2 to {LARGEST}, not {settings.resolution}")
    if not settings.near_clip >= 0:
        raise UserError(f"--near-clip must not be negative, but {settings.near_clip}")
    if settings.box is not None and not all(low < high for low, high in zip(settings.box[:3], settings.box[3:])):
        raise UserError(f"--box: least x, y, z must be below greatest x, y, z, not {' '.join(map(str, settings.box))}")


def _read_metrics(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--metrics: {path} is not a file that ns-eval wrote: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise UserError(f"--metrics: {path} is not a file that ns-eval wrote: it has no results")
    return content


def _load(path: Path) -> Any:
    from nerfstudio.utils.eval_utils import eval_setup

    with torch.no_grad():
        _, pipeline, _, _ = eval_setup(path, test_mode="test")
    return pipeline.eval()


if __name__ == "__main__":
    main()
