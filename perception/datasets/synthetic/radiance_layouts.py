"""The folder layouts in which multi-view sets come: where images go, and how cameras are written down."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

SPLIT_NUMBER = {"train": 0, "val": 1, "test": 2}


class View(NamedTuple):
    """One camera."""

    split: str
    number: int
    pose: np.ndarray  # (4, 4) camera-to-world, OpenGL axes


class Layout(Protocol):
    """Collects the views of a scene in `folder`; images are square with `size` pixels a side, `focal` is in pixels."""

    def __init__(self, folder: Path, size: int, focal: float, bounds: np.ndarray): ...

    def add(self, view: View) -> Path:
        """Note a view; its image belongs at the path that is returned."""
        ...

    def finish(self) -> None:
        """Write what lists all views."""
        ...


class Blender:
    """`transforms_SPLIT.json` and `SPLIT/r_NUMBER.png`, as the synthetic NeRF scenes."""

    def __init__(self, folder: Path, size: int, focal: float, bounds: np.ndarray):
        self.folder, self.angle = folder, 2 * math.atan(0.5 * size / focal)
        self.frames: dict[str, list[dict]] = {split: [] for split in SPLIT_NUMBER}

    def add(self, view: View) -> Path:
        """Note a view; its image belongs at the path that is returned."""
        name = f"{view.split}/r_{view.number:03d}"
        self.frames[view.split].append({"file_path": f"./{name}", "transform_matrix": view.pose.tolist()})
        return self.folder / f"{name}.png"

    def finish(self) -> None:
        """Write what lists all views."""
        for split, frames in self.frames.items():
            _write_json(self.folder / f"transforms_{split}.json", {"camera_angle_x": self.angle, "frames": frames})


class NSVF:
    """`rgb/*.png`, `pose/*.txt` (OpenCV axes), `intrinsics.txt` and `bbox.txt`; splits go by the first digit."""

    def __init__(self, folder: Path, size: int, focal: float, bounds: np.ndarray):
        self.folder = folder
        centre = size / 2
        (folder / "pose").mkdir()
        (folder / "intrinsics.txt").write_text(
            f"{float(focal)!r} {centre} {centre} 0.\n0. 0. 0.\n0.\n1.\n{size} {size}\n"
        )
        np.savetxt(folder / "bbox.txt", [[*bounds[0], *bounds[1], 0.4]], fmt="%.8f")

    def add(self, view: View) -> Path:
        """Note a view; its image belongs at the path that is returned."""
        return self._add(view, f"{SPLIT_NUMBER[view.split]}_{view.split}_{view.number:04d}")

    def _add(self, view: View, name: str) -> Path:
        np.savetxt(self.folder / "pose" / f"{name}.txt", view.pose @ np.diag([1, -1, -1, 1]), fmt="%.10f")
        return self.folder / "rgb" / f"{name}.png"

    def finish(self) -> None:
        """Everything has been written."""


class Tanks(NSVF):
    """As :class:`NSVF`, with a matrix in `intrinsics.txt` and two splits, 0 for training and 1 for testing."""

    def __init__(self, folder: Path, size: int, focal: float, bounds: np.ndarray):
        super().__init__(folder, size, focal, bounds)
        matrix = np.diag([focal, focal, 1, 1])
        matrix[:2, 2] = size / 2
        np.savetxt(folder / "intrinsics.txt", matrix, fmt="%.10f")

    def add(self, view: View) -> Path:
        """Note a view; its image belongs at the path that is returned."""
        # Validation views come before test views, as they would in one sequence.
        return self._add(view, f"{min(1, SPLIT_NUMBER[view.split])}_{view.split}_{view.number:05d}")


class Nerfstudio:
    """`transforms.json` with the intrinsics and a list of all frames, `images/*.png`."""

    def __init__(self, folder: Path, size: int, focal: float, bounds: np.ndarray):
        self.folder = folder
        self.content = {
            "camera_model": "OPENCV",
            "fl_x": float(focal),
            "fl_y": float(focal),
            "cx": size / 2,
            "cy": size / 2,
            "w": size,
            "h": size,
            "frames": [],
        }
        self.names: dict[str, list[str]] = {split: [] for split in SPLIT_NUMBER}

    def add(self, view: View) -> Path:
        """Note a view; its image belongs at the path that is returned."""
        name = f"images/{view.split}_{view.number:03d}.png"
        self.content["frames"].append({"file_path": name, "transform_matrix": view.pose.tolist()})
        self.names[view.split].append(name)
        return self.folder / name

    def finish(self) -> None:
        """Write what lists all views."""
        splits = {f"{split}_filenames": names for split, names in self.names.items()}
        _write_json(self.folder / "transforms.json", {**self.content, **splits})


LAYOUTS: dict[str, type[Layout]] = {"blender": Blender, "nsvf": NSVF, "tanks": Tanks, "nerfstudio": Nerfstudio}


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
