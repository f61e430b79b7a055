"""Where to photograph next: candidates ranked by a trained run, as JSON and as a picture of the rig."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from perception.engine.atomic import replacing
from perception.studio.scene_picture import PLANES, frustum_segments
from projects.activenerf.acquisition import best_views
from projects.activenerf.candidates import Candidates, read_candidates, rejections
from projects.activenerf.finished_run import FinishedRun, load_run
from projects.activenerf.scoring import ViewScore, score_views

UNIT = "variance of a colour between 0 and 1, mean over rays of the reduction summed along each"


@dataclass(frozen=True)
class Advice:
    """Candidates with their scores, and which to take."""

    run: FinishedRun
    candidates: Candidates
    scores: list[ViewScore]
    rejected: dict[int, str]
    """Numbers of those that are left out, with the reason."""
    chosen: list[int]
    """The best ones, in order."""


def advise(config_path: Path, candidates_path: Path, count: int, stride: int | None, device: str | None) -> Advice:
    """Rank poses without images.

    Args:
        config_path: of the run.
        candidates_path: of the poses, see :func:`~projects.activenerf.candidates.read_candidates`.
        count: how many to choose.
        stride: every so-manieth row and column is looked at; by default the run's `ds-rate`.
        device: see :func:`~projects.activenerf.finished_run.load_run`.
    """
    run = load_run(config_path, device)
    candidates = read_candidates(candidates_path, run)
    scores = score_views(run.model, candidates.cameras, stride or run.model.config.ds_rate)
    rejected = rejections(candidates, scores, run)
    kept = [number for number in range(len(scores)) if number not in rejected]
    chosen = [kept[place] for place in best_views([scores[number].mean for number in kept], count)]
    return Advice(run, candidates, scores, rejected, chosen)


def write_advice(advice: Advice, path: Path) -> None:
    """Write all candidates, the best first, then those that are left out."""
    candidates, scores = advice.candidates, advice.scores
    kept = [number for number in range(len(scores)) if number not in advice.rejected]
    order = [kept[place] for place in best_views([scores[number].mean for number in kept], len(kept))]

    def entry(number: int) -> dict:
        return {
            "name": candidates.names[number],
            "number": number,
            "score": scores[number].mean,
            "total": scores[number].total,
            "rays": scores[number].rays,
            "opacity": scores[number].opacity,
            "transform_matrix": candidates.poses[number].tolist(),
        }

    content = {
        "unit": UNIT,
        "next": [candidates.names[number] for number in advice.chosen],
        "ranking": [entry(number) for number in order],
        "rejected": [{**entry(number), "reason": reason} for number, reason in advice.rejected.items()],
    }
    with replacing(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def draw_advice(advice: Advice, path: Path) -> None:
    """Draw the rig from above, from the side and from the front: training cameras grey, candidates coloured by their
    score, the chosen ones ringed and numbered, those that are left out as crosses."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = [figure.add_subplot(1, len(PLANES), number + 1) for number in range(len(PLANES))]
    rig = advice.run.cameras[torch.tensor(advice.run.active)]
    taken = rig.camera_to_worlds[:, :, 3].numpy()
    places = advice.candidates.cameras.camera_to_worlds[:, :, 3].numpy()
    every = np.concatenate([taken, places])
    length = 0.08 * (float(np.ptp(every, axis=0).max()) or 1.0)
    frusta = [frustum_segments(cameras, length) for cameras in (rig, advice.candidates.cameras)]
    kept = [number for number in range(len(places)) if number not in advice.rejected]
    scores = np.array([advice.scores[number].mean for number in kept])
    for axes, (right, up, first, second, title) in zip(panels, PLANES):
        flat = [first, second]
        axes.add_collection(LineCollection(frusta[0][..., flat], colors="0.6", linewidths=0.6))
        axes.add_collection(LineCollection(frusta[1][..., flat], colors="tab:blue", linewidths=0.4, alpha=0.4))
        axes.scatter(*taken[:, flat].T, color="0.4", s=14, label=f"taken ({len(taken)})")
        left_out = places[list(advice.rejected)]
        axes.scatter(*left_out[:, flat].T, color="tab:red", marker="x", s=24, label=f"left out ({len(left_out)})")
        shown = axes.scatter(
            *places[kept][:, flat].T, c=scores, cmap="viridis", s=36, label=f"candidates ({len(kept)})"
        )
        for rank, number in enumerate(advice.chosen):
            point = places[number][flat]
            axes.scatter(*point, s=130, facecolors="none", edgecolors="black", label="next" if rank == 0 else None)
            axes.annotate(str(rank + 1), point, textcoords="offset points", xytext=(8, 6))
        axes.set_aspect("equal", adjustable="datalim")
        axes.autoscale_view()
        axes.set(xlabel=right, ylabel=up, title=title)
    panels[0].legend(fontsize=8)
    figure.colorbar(shown, ax=panels, label="score")
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=90)
