"""The folder layouts in which multi-view sets come: where images go, and how cameras are written down."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from scipy.spatial.transform import Rotation

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


class Colmap:
    """COLMAP's text model in `colmap/sparse/0` and `images/*.png`; the points are the corners of the scene's box."""

    def __init__(self, folder: Path, size: int, focal: float, bounds: np.ndarray):
        self.folder, self.model = folder, folder / "colmap/sparse/0"
        self.model.mkdir(parents=True)
        centre = size / 2
        camera = f"1 PINHOLE {size} {size} {float(focal)!r} {float(focal)!r} {centre} {centre}\n"
        (self.model / "cameras.txt").write_text(camera)
        corners = np.stack(np.meshgrid(*bounds.T, indexing="ij"), -1).reshape(-1, 3)
        points = [f"{n} {x} {y} {z} 128 128 128 0.1\n" for n, (x, y, z) in enumerate(corners.tolist(), start=1)]
        (self.model / "points3D.txt").write_text("".join(points))
        self.lines: list[str] = []

    def add(self, view: View) -> Path:
        """Note a view; its image belongs at the path that is returned."""
        world_to_camera = np.linalg.inv(view.pose @ np.diag([1, -1, -1, 1]))  # OpenCV axes
        x, y, z, w = Rotation.from_matrix(world_to_camera[:3, :3]).as_quat().tolist()
        translation = " ".join(map(repr, world_to_camera[:3, 3].tolist()))
        name = f"{view.split}_{view.number:03d}.png"
        # Each image has a second line with its key points: there are none.
        self.lines.append(f"{len(self.lines) + 1} {w!r} {x!r} {y!r} {z!r} {translation} 1 {name}\n\n")
        return self.folder / "images" / name

    def finish(self) -> None:
        """Write what lists all views."""
        (self.model / "images.txt").write_text("".join(self.lines))


class LLFF:
    """`poses_bounds.npy` and `images/*.png` of all views, training views first."""

    def __init__(self, folder: Path, size: int, focal: float, bounds: np.ndarray):
        self.folder, self.size, self.focal = folder, size, focal
        self.corners = np.stack(np.meshgrid(*bounds.T, indexing="ij"), -1).reshape(-1, 3)
        self.rows: list[np.ndarray] = []

    def add(self, view: View) -> Path:
        """Note a view; its image belongs at the path that is returned."""
        depths = (view.pose[:3, 3] - self.corners) @ view.pose[:3, 2]
        near_and_far = np.array([depths.min(), depths.max()])
        self.rows.append(llff_row(view.pose, (self.size, self.size), self.focal, near_and_far))
        return self.folder / "images" / f"image_{len(self.rows) - 1:03d}.png"

    def finish(self) -> None:
        """Write what lists all views."""
        np.save(self.folder / "poses_bounds.npy", np.stack(self.rows))


def llff_row(pose: np.ndarray, size: tuple[int, int], focal: float, bounds: np.ndarray) -> np.ndarray:
    """The row (17,) of `poses_bounds.npy` for a camera.

    Args:
        pose: (4, 4) camera-to-world, OpenGL axes; the file has the axes down, right, backwards.
        size: width and height in pixels.
        focal: in pixels.
        bounds: smallest and largest depth that it sees.
    """
    right, up, back, place = pose[:3].T
    matrix = np.stack([-up, right, back, place, np.array([size[1], size[0], focal])], -1)  # (3, 5)
    return np.concatenate([matrix.reshape(-1), bounds])


LAYOUTS: dict[str, type[Layout]] = {
    "blender": Blender,
    "nsvf": NSVF,
    "tanks": Tanks,
    "nerfstudio": Nerfstudio,
    "colmap": Colmap,
    "llff": LLFF,
}


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
