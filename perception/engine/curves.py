"""Curves of a training: losses, learning rates and metrics from its logs, as one picture."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from .atomic import replacing

_MOST_LINES = 10  # of a panel: more cannot be told apart
_NO_CURVES = {"data_time", "time", "memory", "iter", "epoch", "step"}


@dataclass
class Curves:
    """What the logs of a work directory hold; each curve maps steps to values."""

    training: dict[str, dict[int, float]] = field(default_factory=dict)
    """Losses, learning rates and what else a model reports, by iteration."""
    metrics: dict[str, dict[int, float]] = field(default_factory=dict)
    """Validation, by epoch or iteration."""
    by_epoch: bool = False
    """Whether the run counts epochs, and so its metrics do."""


def read_curves(work_dir: str | Path) -> Curves:
    """Reads `*/vis_data/scalars.json` below a work directory, in the order in which the runs began.

    A run continues the one before it: from its first step on, what earlier runs wrote is dropped. So is a last line
    that a killed process has left half-written.
    """
    curves = Curves()
    for log in sorted(Path(work_dir).glob("*/vis_data/scalars.json")):
        started: set[int] = set()
        for record in _records(log):
            training = any(key == "lr" or key.endswith("/lr") for key in record)
            curves.by_epoch |= training and "epoch" in record
            group = curves.training if training else curves.metrics
            if id(group) not in started:
                started.add(id(group))
                _forget_from(group, record["step"])
            for key, value in record.items():
                if key not in _NO_CURVES and isinstance(value, (int, float)):
                    group.setdefault(key, {})[record["step"]] = value
    return curves


def draw_curves(work_dir: str | Path) -> Path | None:
    """Writes `curves.png` into a work directory.

    Returns:
        The picture, or None where the logs hold nothing to draw.
    """
    curves = read_curves(work_dir)
    panels = [panel for panel in _panels(curves) if panel[1]]
    if not panels:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (title, lines, step, left_out) in enumerate(panels, start=1):
        axes = figure.add_subplot(len(panels), 1, number)
        for name, points in lines.items():
            steps = sorted(points)
            marker = "o" if len(steps) < 30 else None
            width = 2.2 if name == "loss" else 1.1
            values = [points[step] for step in steps]
            axes.plot(steps, values, label=name, linewidth=width, marker=marker, markersize=3)
        axes.set(title=title, xlabel=step)
        axes.grid(alpha=0.3)
        if title == "losses" and all(value > 0 for points in lines.values() for value in points.values()):
            axes.set_yscale("log")
        heading = f"and {left_out} smaller ones" if left_out else None
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, title=heading, title_fontsize=8)
    picture = Path(work_dir, "curves.png")
    with replacing(picture) as file:
        figure.savefig(file, format="png", dpi=90)
    return picture


@contextmanager
def curves_of(work_dir: str | Path, terminable: bool) -> Iterator[None]:
    """Draws the curves of a training when it ends, also when it is interrupted, and prints where they are.

    Args:
        work_dir: its folder.
        terminable: whether SIGTERM, too, ends the training in an orderly way, with status 143. Not for processes that
            wait for each other: they would be waiting still when the signal comes.
    """

    def stop(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop) if terminable else None
    try:
        yield
    finally:
        if terminable:
            signal.signal(signal.SIGTERM, before)
        picture = draw_curves(work_dir)
        if picture is not None:
            print(f"curves: {picture}; also: tensorboard --logdir {work_dir}", flush=True)


def _records(log: Path) -> Iterator[dict]:
    for line in log.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            yield record


def _forget_from(group: dict[str, dict[int, float]], first: int) -> None:
    for name, points in list(group.items()):
        group[name] = {step: value for step, value in points.items() if step < first}
        if not group[name]:
            del group[name]


def _panels(curves: Curves) -> Iterator[tuple[str, dict, str, int]]:
    """Title, curves, unit of the steps and number of curves that are left out, of each part of the picture."""
    rates = {name: points for name, points in curves.training.items() if name.rpartition("/")[2] in ("lr", "base_lr")}
    losses = {name: points for name, points in curves.training.items() if "loss" in name}
    others = {name: points for name, points in curves.training.items() if name not in {*rates, *losses}}
    # pycocotools says -1 where there is nothing to measure.
    metrics = {name: points for name, points in curves.metrics.items() if set(points.values()) != {-1.0}}
    small = {name: points for name, points in metrics.items() if max(map(abs, points.values())) <= 1}
    large = {name: points for name, points in metrics.items() if name not in small}
    metric_step = "epoch" if curves.by_epoch else "iteration"
    for title, lines, step in (
        ("losses", losses, "iteration"),
        ("learning rate", rates, "iteration"),
        ("training, other", others, "iteration"),
        ("metrics", small, metric_step),
        ("metrics of other ranges" if small else "metrics", large, metric_step),
    ):
        names = list(lines)
        if len(names) > _MOST_LINES:
            largest = sorted(names, key=lambda name: -sum(map(abs, lines[name].values())) / len(lines[name]))
            names = [name for name in names if name in largest[:_MOST_LINES]]
        yield title, {name: lines[name] for name in names}, step, len(lines) - len(names)
