"""A picture of a scene's cameras, what they see, and the box in which the scene lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nerfstudio.cameras.cameras import Cameras

from perception.engine.atomic import replacing
from perception.studio.depth_range import camera_axes, common_point, corner_rays
from perception.studio.scene_checks import SceneReport

COLOURS = {"train": "tab:blue", "val": "tab:orange", "test": "tab:green"}
FRUSTUM_SHARE = 0.08  # of the cameras' extent: how long frusta are drawn
PLANES = (("x", "y", 0, 1, "from above"), ("x", "z", 0, 2, "from the side"), ("y", "z", 1, 2, "from the front"))
CORNERS = ((0, 1), (1, 3), (3, 2), (2, 0), (4, 5), (5, 7), (7, 6), (6, 4), (0, 4), (1, 5), (2, 6), (3, 7))


def draw_scene(report: SceneReport, path: Path) -> None:
    """Draw all cameras of a report in space and along the three axes, and write the picture as PNG.

    Small pyramids are the cameras' frusta; faint lines run from near to far along their axes; the grey box is the data
    parser's scene box; the cross is the point that the training cameras look at.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 12), layout="constrained")
    FigureCanvasAgg(figure)
    space = figure.add_subplot(2, 2, 1, projection="3d")
    flat = [figure.add_subplot(2, 2, number + 2) for number in range(3)]
    figure.suptitle("\n".join(report.summary()), fontsize=10, ha="left", x=0.02, family="monospace")

    centres = np.concatenate([_positions(outputs.cameras) for outputs in report.splits.values()])
    length = FRUSTUM_SHARE * (float(np.ptp(centres, axis=0).max()) or 1.0)
    for split, outputs in report.splits.items():
        label = f"{split} ({len(outputs.image_filenames)})"
        frusta = frustum_segments(outputs.cameras, length)
        _draw(space, flat, frusta, color=COLOURS.get(split, "tab:red"), linewidth=0.8, label=label)
        if report.depth_range is not None:
            seen = axis_segments(outputs.cameras, *report.depth_range[:2])
            _draw(space, flat, seen, color=COLOURS.get(split, "tab:red"), linewidth=0.6, alpha=0.2)
    first = next(iter(report.splits.values()))
    _draw(space, flat, box_segments(first.scene_box.aabb.numpy()), color="grey", linestyle="dashed", label="scene box")
    _mark_common_point(first.cameras, space, flat)
    drawn = np.concatenate([centres, first.scene_box.aabb.numpy()])
    low, high = drawn.min(0) - length, drawn.max(0) + length
    space.set(
        xlabel="x", ylabel="y", zlabel="z", xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2])
    )
    space.set_aspect("equal")
    figure.legend(*space.get_legend_handles_labels(), loc="upper right")
    for axes, (right, up, *_, title) in zip(flat, PLANES):
        axes.set_aspect("equal", adjustable="datalim")
        axes.autoscale_view()
        axes.set(xlabel=right, ylabel=up, title=title)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=80)


def frustum_segments(cameras: Cameras, length: float) -> np.ndarray:
    """Edges (S, 2, 3) of the pyramids from the cameras to a depth of ``length``, in the scene's frame."""
    ends = cameras.camera_to_worlds.double().numpy()[:, None, :, 3] + length * corner_rays(cameras).numpy()  # (N, 4, 3)
    apex = np.broadcast_to(_positions(cameras)[:, None], ends.shape)
    sides, rim = np.stack([apex, ends], 2), np.stack([ends, np.roll(ends, -1, 1)], 2)  # (N, 4, 2, 3)
    return np.concatenate([sides, rim], 1).reshape(-1, 2, 3)


def axis_segments(cameras: Cameras, near: float, far: float) -> np.ndarray:
    """The parts (N, 2, 3) of the viewing axes between two depths."""
    positions, forward = (part.numpy() for part in camera_axes(cameras))
    return np.stack([positions + near * forward, positions + far * forward], 1)


def box_segments(box: np.ndarray) -> np.ndarray:
    """The edges (12, 2, 3) of a box (2, 3)."""
    corners = np.stack(np.meshgrid(*box.T, indexing="ij"), -1).reshape(-1, 3)
    return np.array([[corners[start], corners[end]] for start, end in CORNERS])


def _positions(cameras: Cameras) -> np.ndarray:
    return camera_axes(cameras)[0].numpy()


def _draw(space, flat, segments: np.ndarray, **style) -> None:
    from matplotlib.collections import LineCollection
    from mpl_toolkits.mplot3d.art3d import Line3DCollection

    options = {name.replace("color", "colors").replace("linestyle", "linestyles"): style[name] for name in style}
    space.add_collection3d(Line3DCollection(segments, **options))
    for axes, (*_, first, second, _) in zip(flat, PLANES):
        axes.add_collection(LineCollection(segments[..., [first, second]], **options))


def _mark_common_point(cameras: Cameras, space, flat) -> None:
    centre = common_point(*camera_axes(cameras))
    if centre is None:
        return
    point = centre.numpy()
    space.scatter(*point[:, None], color="black", marker="x", label="looked at")
    for axes, (*_, first, second, _) in zip(flat, PLANES):
        axes.scatter(point[first], point[second], color="black", marker="x")
