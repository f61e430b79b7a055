"""Maps of the uncertainty of views, in absolute numbers, and where it means nothing."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from perception.engine.atomic import output_folder, replacing
from perception.studio.model import OPAQUE
from perception.studio.progress import progress_bar
from projects.activenerf.candidates import read_candidates
from projects.activenerf.finished_run import FinishedRun, load_run
from projects.activenerf.scoring import ViewScore, camera_rays, score_views

ENOUGH = 2
"""Views that must see a point for its colour to be known: the variance of what fewer have seen is a guess."""
TOLERANCE = 0.05  # of a distance, by which a point may lie behind what a view shows
UNIT = "variance of a colour between 0 and 1"


@dataclass(frozen=True)
class UncertaintyMap:
    """Of one view, (H, W) each."""

    uncert: np.ndarray
    """Variance of the colour."""
    seen_by: np.ndarray
    """Number of training views that see what the pixel shows; -1 where it shows nothing."""
    score: ViewScore

    @property
    def unknown(self) -> np.ndarray:
        """Pixels that show what fewer than ``ENOUGH`` views see."""
        return (self.seen_by >= 0) & (self.seen_by < ENOUGH)


def write_maps(
    config_path: Path, cameras_path: Path, out: Path, stride: int, brightest: float, device: str | None
) -> dict[str, UncertaintyMap]:
    """Write `NAME.npz`, `NAME.png` and `maps.json` for each of the poses of a file.

    Args:
        config_path: of the run.
        cameras_path: see :func:`~projects.activenerf.candidates.read_candidates`.
        out: folder.
        stride: every so-manieth row and column is rendered.
        brightest: standard deviation of the colour at the end of the pictures' scale.
        device: see :func:`~projects.activenerf.finished_run.load_run`.
    """
    run = load_run(config_path, device)
    views = read_candidates(cameras_path, run)
    output_folder(out)
    shown = [seen_distances(run, view) for view in run.active]
    scores = score_views(run.model, views.cameras, stride)
    made, listed = {}, []
    with progress_bar("Rendering maps", len(views.names)) as advance:
        for number, name in enumerate(views.names):
            file = f"{number:03d}_{re.sub(r'[^A-Za-z0-9_.-]+', '_', Path(name).stem)}"
            found = made[file] = uncertainty_map(run, views.cameras[number : number + 1], stride, shown, scores[number])
            with replacing(out / f"{file}.npz") as target:
                np.savez_compressed(target, uncert=found.uncert, seen_by=found.seen_by, unit=UNIT)
            _draw(found, out / f"{file}.png", brightest)
            mean, share = float(found.uncert.mean()), float(found.unknown.mean())
            score = {"score": scores[number].mean, "total": scores[number].total}
            listed.append({"name": name, "file": file, **score, "mean_uncert": mean, "unknown": share})
            advance()
    with replacing(out / "maps.json") as target:
        target.write((json.dumps({"unit": UNIT, "views": listed}, indent=2) + "\n").encode())
    return made


@torch.no_grad()
def uncertainty_map(
    run: FinishedRun, camera: Cameras, stride: int, shown: list[Tensor], score: ViewScore
) -> UncertaintyMap:
    """The map of a camera (1).

    Args:
        run: the model and its views.
        camera: in the frame of the run.
        stride: every so-manieth row and column is rendered.
        shown: of each active view, from :func:`seen_distances`.
        score: of the camera.
    """
    variances, counts = [], []
    for rays in camera_rays(run.model, camera, stride):
        outputs = run.model.get_outputs(rays)
        points = (rays.origins + rays.directions * outputs["depth"]).float().cpu()
        seen = torch.stack([sees(run.cameras[view], points, far) for view, far in zip(run.active, shown)]).sum(0)
        counts.append(torch.where(outputs["accumulation"][:, 0].cpu() > OPAQUE, seen, -1))
        variances.append(outputs["uncert"][:, 0].cpu())
    rows, columns = -(-int(camera.height) // stride), -(-int(camera.width) // stride)
    uncert, seen_by = (torch.cat(part).view(rows, columns).numpy() for part in (variances, counts))
    return UncertaintyMap(uncert, seen_by.astype(np.int16), score)


@torch.no_grad()
def seen_distances(run: FinishedRun, view: int) -> Tensor:
    """How far a training view sees (H, W), in scene units along its rays."""
    camera = run.cameras[view : view + 1]
    depths = [run.model.get_outputs(rays)["depth"][:, 0].cpu() for rays in camera_rays(run.model, camera, 1)]
    return torch.cat(depths).view(int(camera.height), int(camera.width))


def sees(camera: Cameras, points: Tensor, distances: Tensor) -> Tensor:
    """Which points (N, 3) a camera sees: they lie in its image, and not behind what it shows there.

    Args:
        camera: a single one; its lens counts as a pinhole.
        points: in its frame.
        distances: (H, W) to what it shows.
    """
    pose = camera.camera_to_worlds.float()
    local = (points - pose[:, 3]) @ pose[:, :3]
    ahead = -local[:, 2]
    safe = ahead.clamp(min=1e-6)
    across = local[:, 0] / safe * float(camera.fx) + float(camera.cx)
    down = -local[:, 1] / safe * float(camera.fy) + float(camera.cy)
    height, width = distances.shape
    inside = (ahead > 0) & (across >= 0) & (across < width) & (down >= 0) & (down < height)
    rows, columns = down.clamp(0, height - 1).long(), across.clamp(0, width - 1).long()
    return inside & (local.norm(dim=-1) <= distances[rows, columns] * (1 + TOLERANCE))


def _draw(found: UncertaintyMap, path: Path, brightest: float) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    picture = axes.imshow(np.sqrt(found.uncert), cmap="viridis", vmin=0, vmax=brightest)
    if found.unknown.any():
        axes.contourf(found.unknown.astype(float), levels=[0.5, 1.5], colors="none", hatches=["////"])
    axes.set(xticks=[], yticks=[])
    axes.set_title(f"score {found.score.mean:.4g}; hatched: seen by fewer than {ENOUGH} views", fontsize=9)
    figure.colorbar(picture, ax=axes, label="standard deviation of the colour (0 to 1)", extend="max")
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=80)
