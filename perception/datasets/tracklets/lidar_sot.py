"""The LiDAR-SOT benchmark (Pang et al., "Model-free Vehicle Tracking and State Estimation in Point Cloud Sequences",
IROS 2021): chosen tracklets of Waymo Open's validation segments, on which trackers of KITTI are tried as they are."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from torch import Tensor

from perception.engine.errors import UserError

from .tracklet import Tracklet, TrackletSet, in_order
from .waymo import ArraysUnpickler

CATEGORIES = ("vehicle", "pedestrian")
SPLITS = {"all": "bench_list", "easy": "easy", "medium": "medium", "hard": "hard"}
"""Lists of tracklets: the benchmark divides them by how many points they have."""


@DATASETS.register_module()
class LidarSotTracklets(TrackletSet):
    """The benchmark's tracklets, in the vehicle's frame of each cloud.

    ``benchmark/validation/CATEGORY/{bench_list,easy,medium,hard}.json`` (the released repository leaves ``validation``
    out, which is read as well) name them: ``[{"id", "segment_name", "frame_range": [first, last]}, ...]``.
    ``pc/raw_pc/SEGMENT.npz`` holds a cloud (N, 3) for each frame number, ``gt_info/SEGMENT.npz`` for each frame the
    boxes (x, y, z, heading, l, w, h), which a score may follow, and ``ids``.

    Args:
        data_root: folder with ``benchmark``, ``pc`` and ``gt_info``.
        split: a key of :data:`SPLITS`.
        categories: of :data:`CATEGORIES`.
        min_first_points, max_gap: see :class:`.kitti.KittiTracklets`.

    Raises:
        UserError: files are missing or hold something else.
    """

    def __init__(
        self,
        data_root: str,
        split: str = "all",
        categories: Sequence[str] = CATEGORIES,
        min_first_points: int = 0,
        max_gap: int | None = None,
    ):
        self.root, self.split, self.categories = Path(data_root), split, tuple(categories)
        if split not in SPLITS:
            raise UserError(f"LiDAR-SOT has no split {split!r}: there are {', '.join(SPLITS)}")
        if unknown := [name for name in self.categories if name not in CATEGORIES]:
            raise UserError(f"LiDAR-SOT has no category {unknown[0]!r}: there are {', '.join(CATEGORIES)}")
        self.tracklets = [one for category in self.categories for one in self._read(category)]
        self._choose(min_first_points, max_gap)
        frames = sum(map(len, self.tracklets))
        print_log(f"{self.root}, {split}: {len(self.tracklets)} tracklets, {frames} frames", logger="current")

    def cloud(self, scene: str, frame: int) -> Tensor:
        """See :class:`TrackletSet`; float32, in the vehicle's frame."""
        path = self._file("pc/raw_pc", scene)
        try:
            with np.load(path, allow_pickle=False) as clouds:
                points = np.asarray(clouds[str(frame)], np.float32).reshape(-1, 3)
        except KeyError as error:
            raise UserError(f"{path} has no cloud of frame {frame}") from error
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} has no clouds of (N, 3) points ({error})") from error
        return torch.from_numpy(points[np.isfinite(points).all(1)])

    def state(self) -> str:
        """See :class:`TrackletSet`."""
        words = [self.split, *self.categories]
        for scene in sorted({one.scene for one in self.tracklets}):
            for folder in ("pc/raw_pc", "gt_info"):
                file = self._file(folder, scene).stat()
                words.append(f"{folder} {scene} {file.st_size} {file.st_mtime_ns}")
        return "\n".join([*words, *(f"{one.name} {one.frames}" for one in self.tracklets)])

    def _file(self, folder: str, scene: str) -> Path:
        return self.root / folder / f"{scene}.npz"

    def _read(self, category: str) -> list[Tracklet]:
        places = [self.root / "benchmark" / part / category for part in ("validation", "")]
        path = next((place for place in places if place.is_dir()), places[0]) / f"{SPLITS[self.split]}.json"
        try:
            entries = json.loads(path.read_text())
            chosen = [
                (str(e["id"]), str(e["segment_name"]), int(e["frame_range"][0]), int(e["frame_range"][1]))
                for e in entries
            ]
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"{path} is no list of LiDAR-SOT's tracklets ({error!r})") from error
        labels: dict[str, tuple[Any, Any]] = {}
        found = []
        for identity, scene, first, last in chosen:
            if scene not in labels:
                if not self._file("pc/raw_pc", scene).is_file():
                    raise UserError(f"{self._file('pc/raw_pc', scene)}, whose tracklets {path} names, is not there")
                labels[scene] = _labels(self._file("gt_info", scene))
            try:
                rows = _rows(*labels[scene], identity, first, last)
            except ValueError as error:
                raise UserError(f"{self._file('gt_info', scene)}: a box is not seven numbers or more") from error
            if not rows:
                raise UserError(f"{path}: {identity} has no box in frames {first} to {last} of {scene}")
            found.append(Tracklet(f"{scene}/{identity}/{category}", category, scene, *in_order(rows)))
        return found


def _labels(path: Path) -> tuple[Any, Any]:
    """Boxes and identities of each frame."""
    try:
        with zipfile.ZipFile(path) as archive:
            boxes, identities = (_array(archive.read(f"{name}.npy")) for name in ("bboxes", "ids"))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise UserError(f'{path} has no "bboxes" and "ids" of LiDAR-SOT ({error})') from error
    if len(boxes) != len(identities) or any(len(b) != len(i) for b, i in zip(boxes, identities, strict=True)):
        raise UserError(f"{path} does not have as many boxes as ids in every frame")
    return boxes, identities


def _array(data: bytes) -> Any:
    stream = io.BytesIO(data)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in readers:
        raise ValueError(f"an array of NumPy's format {version}")
    if not readers[version](stream)[2].hasobject:
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    # Frames of different numbers of objects make an array of arrays.
    try:
        return ArraysUnpickler(stream).load()
    except Exception as error:  # a damaged pickle fails in any way
        raise ValueError(f"{error}; only arrays and plain values are read") from error


def _rows(boxes: Any, identities: Any, identity: str, first: int, last: int) -> list[tuple[int, Tensor]]:
    """Frame numbers and boxes (7,) of an object."""
    rows = []
    for frame in range(first, min(last + 1, len(boxes))):
        for numbers, name in zip(boxes[frame], identities[frame], strict=True):
            if str(name) == identity:
                x, y, z, heading, length, width, height = np.asarray(numbers, np.float64)[:7].tolist()
                box = torch.tensor([x, y, z, length, width, height, heading], dtype=torch.float64)
                rows.append((frame, box))
    return rows
