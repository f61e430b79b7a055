"""Waymo Open (Sun et al., CVPR 2020) as tracklets, as CenterPoint's tools lay it out, in the global frame."""

from __future__ import annotations

import pickle
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from torch import Tensor

from perception.engine.errors import UserError
from perception.geometry import se3

from .tracklet import Tracklet, TrackletSet, in_order

CATEGORIES = {"vehicle": 1, "pedestrian": 2, "cyclist": 4}
"""Waymo's numbers of the categories; 3 are signs."""
_NAME = re.compile(r"seq_(\d+)_frame_(\d+)\.pkl")


@DATASETS.register_module()
class WaymoTracklets(TrackletSet):
    """Tracklets of Waymo's segments: ``SPLIT/lidar`` and ``SPLIT/annos`` hold ``seq_S_frame_F.pkl`` for each cloud.

    A cloud is ``{"lidars": {"points_xyz": (N, 3), ...}}`` in the vehicle's frame; annotations are
    ``{"veh_to_global": 16 numbers, "objects": [{"name", "label", "num_points", "box": (x, y, z, l, w, h, ...,
    heading)}, ...]}``, where ``num_points`` may be missing.
    The pickles may hold nothing but arrays, numbers, words and containers: anything else is refused, not run.

    Args:
        data_root: folder with ``train`` and ``val``.
        split: one of them.
        categories: keys of :data:`CATEGORIES`.
        heading: ``"waymo"`` turns from x to y, as Waymo defines it; ``"released"`` the other way, as Open3DSOT reads
            it.
        with_empty: keep the boxes of frames in which they hold no point (``num_points`` 0). CenterPoint's info files,
            and with them published tracklets, leave these out.
        min_first_points, max_gap: see :class:`.kitti.KittiTracklets`.

    Raises:
        UserError: files are missing or hold something else, or the split has none of the categories.
    """

    def __init__(
        self,
        data_root: str,
        split: str = "train",
        categories: Sequence[str] = tuple(CATEGORIES),
        heading: Literal["waymo", "released"] = "waymo",
        with_empty: bool = False,
        min_first_points: int = 0,
        max_gap: int | None = None,
    ):
        self.root, self.categories = Path(data_root) / split, tuple(categories)
        if unknown := [name for name in self.categories if name not in CATEGORIES]:
            raise UserError(f"Waymo has no category {unknown[0]!r}: there are {', '.join(CATEGORIES)}")
        if heading not in ("waymo", "released"):
            raise UserError(f'heading is "waymo" or "released", not {heading!r}')
        self._sign = 1.0 if heading == "waymo" else -1.0
        self._with_empty = with_empty
        for folder in ("annos", "lidar"):
            if not (self.root / folder).is_dir():
                raise UserError(f"{self.root} has no folder {folder}: CenterPoint's layout of Waymo is expected there")
        self._poses: dict[tuple[str, int], tuple[float, ...]] = {}
        self.tracklets = self._read()
        if not self.tracklets:
            raise UserError(f"no {', '.join(self.categories)} is annotated in {self.root}")
        self._choose(min_first_points, max_gap)
        frames = sum(map(len, self.tracklets))
        print_log(
            f"{self.root}: {len(self.tracklets)} tracklets, {frames} frames; headings as {heading}", logger="current"
        )

    def cloud(self, scene: str, frame: int) -> Tensor:
        """See :class:`TrackletSet`; float64."""
        path = self._file("lidar", scene, frame)
        try:
            points = np.asarray(_load(path)["lidars"]["points_xyz"], np.float64).reshape(-1, 3)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f'{path} has no "lidars" with "points_xyz" (N, 3)') from error
        found = torch.from_numpy(points[np.isfinite(points).all(1)])
        pose = torch.tensor(self._poses[scene, frame], dtype=torch.float64).view(4, 4)
        return se3.transform_points(pose, found)

    def state(self) -> str:
        """See :class:`TrackletSet`."""
        words = [str(self._sign), *self.categories]
        for folder in ("annos", "lidar"):
            for path in sorted((self.root / folder).glob("*.pkl")):
                words.append(f"{folder} {path.name} {path.stat().st_size} {path.stat().st_mtime_ns}")
        words += [f"{one.name} {one.frames}" for one in self.tracklets]
        return "\n".join(words)

    def _file(self, folder: str, scene: str, frame: int) -> Path:
        return self.root / folder / f"seq_{scene}_frame_{frame}.pkl"

    def _read(self) -> list[Tracklet]:
        names = {CATEGORIES[name]: name for name in self.categories}
        rows: dict[tuple[str, str, str], list[tuple[int, Tensor]]] = defaultdict(list)
        places = [match for path in (self.root / "annos").iterdir() if (match := _NAME.fullmatch(path.name))]
        for scene, frame in sorted(((match[1], int(match[2])) for match in places), key=lambda p: (int(p[0]), p[1])):
            path = self._file("annos", scene, frame)
            if not self._file("lidar", scene, frame).is_file():
                raise UserError(f"{path} has no cloud {self._file('lidar', scene, frame)}")
            content = _load(path)
            try:
                pose = torch.tensor(np.asarray(content["veh_to_global"], np.float64).reshape(4, 4))
                objects = [
                    (one["name"], int(one["label"]), one["box"])
                    for one in content["objects"]
                    if self._with_empty or one.get("num_points", 1) > 0
                ]
                boxes = [self._box(box, pose) for _, _, box in objects]
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise UserError(f"{path} is no annotation of Waymo in CenterPoint's layout ({error!r})") from error
            self._poses[scene, frame] = tuple(pose.flatten().tolist())
            for (name, label, _), box in zip(objects, boxes, strict=True):
                if label in names:
                    rows[scene, names[label], str(name)].append((frame, box))
        return [
            Tracklet(f"{scene}/{name}/{category}", category, scene, *in_order(labelled))
            for (scene, category, name), labelled in rows.items()
        ]

    def _box(self, numbers: Any, pose: Tensor) -> Tensor:
        numbers = np.asarray(numbers, np.float64)
        if numbers.ndim != 1 or len(numbers) < 7:
            raise ValueError("a box has x, y, z, length, width, height, ..., heading")
        box = torch.tensor([*numbers[:6], self._sign * numbers[-1]], dtype=torch.float64)
        centre = se3.transform_points(pose, box[None, :3])[0]
        return torch.cat([centre, box[3:6], box[6:] + se3.heading(pose)])


_NUMPY = {("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer")}


class ArraysUnpickler(pickle.Unpickler):
    """Reads arrays and containers, and nothing that could run."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric"):
            part = module.rpartition(".")[2]
            if (part, name) in _NUMPY:
                return getattr(getattr(np._core, part), name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}")


def _load(path: Path) -> dict:
    try:
        with path.open("rb") as file:
            content = ArraysUnpickler(file).load()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except Exception as error:  # a damaged pickle fails in any way
        raise UserError(f"{path} is refused: {error}; only arrays and plain values are read") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a dictionary")
    return content
