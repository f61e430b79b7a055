"""The boxes with which targets begin: from a file, JSON or KITTI's labels."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perception.datasets.tracklets.kitti_files import read_labels
from perception.engine.errors import UserError
from perception.geometry import boxes3d
from perception.inference.scan import Source

FRAMES = ("sensor", "world")


@dataclass(frozen=True)
class FirstBox:
    """Where a target begins.

    Attributes:
        identity: of the target within its sequence.
        category: of the target.
        source: name of the cloud in which its box is.
        box: (7,) float64, see :mod:`perception.geometry.boxes3d`.
        frame: ``"sensor"``, or ``"world"`` for that of the poses.
    """

    identity: str
    category: str
    source: str
    box: Tensor
    frame: str


Boxes = Mapping[str, Sequence[FirstBox]]
"""By the name of the sequence."""


def read_first_boxes(path: Path, sources: Sequence[Source]) -> Boxes:
    """The first box of each target of a file or folder.

    JSON is ``{"frame": "sensor", "boxes": [{"cloud": "0000/000000.bin", "id": 1, "category": "Car", "box": [x, y, z, l,
    w, h, yaw]}, ...]}``, metres and radians, z the middle of the box; KITTI's labels are ``LABELS.txt`` for a single
    sequence, or a folder with ``SEQUENCE.txt`` for each.

    Args:
        path: of the file or folder.
        sources: the clouds.

    Raises:
        UserError: it cannot be read, or does not fit the clouds.
    """
    if not path.exists():
        raise UserError(f"--boxes {path} does not exist")
    if path.is_dir() or path.suffix.lower() == ".txt":
        found = _kitti(path, sources)
    else:
        found = _json(path, sources)
    if not any(found.values()):
        raise UserError(f"--boxes {path} has no box of any of the {len(sources)} clouds")
    return found


def _json(path: Path, sources: Sequence[Source]) -> Boxes:
    try:
        content = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise UserError(f"--boxes {path} is no JSON file ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("boxes"), list):
        raise UserError(f'--boxes {path} has no list of "boxes"')
    frame = content.get("frame")
    if frame not in FRAMES:
        raise UserError(
            f"--boxes {path} does not say whether its boxes are in the sensor's or the world's frame: "
            'it needs "frame": "sensor" or "world"'
        )
    by_name = {source.name: source for source in sources}
    found: dict[str, list[FirstBox]] = defaultdict(list)
    for number, entry in enumerate(content["boxes"], 1):
        where = f"--boxes {path}, box {number}"
        if not isinstance(entry, dict):
            raise UserError(f"{where} is no object")
        missing = [key for key in ("cloud", "id", "category", "box") if key not in entry]
        if missing:
            raise UserError(f"{where} has no {', '.join(missing)}")
        source = by_name.get(entry["cloud"])
        if source is None:
            raise UserError(f"{where} is of the cloud {entry['cloud']!r}, which is not among the clouds of the folder")
        found[source.sequence].append(
            FirstBox(str(entry["id"]), str(entry["category"]), source.name, _box(entry["box"], where), frame)
        )
    for sequence, boxes in found.items():
        identities = [box.identity for box in boxes]
        if len(set(identities)) < len(identities):
            raise UserError(f"--boxes {path}: an id of sequence {sequence} stands for two targets")
    return found


def _box(numbers: Any, where: str) -> Tensor:
    right = isinstance(numbers, list) and len(numbers) == 7 and all(isinstance(n, (int, float)) for n in numbers)
    if not right or not all(map(math.isfinite, numbers)):
        raise UserError(f"{where}: seven numbers are expected, x, y, z, length, width, height, yaw")
    if min(numbers[3:6]) <= 0:
        raise UserError(f"{where}: length, width and height are {numbers[3:6]}; they must be positive")
    return torch.tensor(numbers, dtype=torch.float64)


def _kitti(path: Path, sources: Sequence[Source]) -> Boxes:
    sequences: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        sequences[source.sequence].append(source)
    if path.is_file() and len(sequences) > 1:
        raise UserError(
            f"--boxes {path} is one file of labels, but there are {len(sequences)} sequences: name the folder of theirs"
        )
    found: dict[str, list[FirstBox]] = {}
    for name, clouds in sequences.items():
        file = path if path.is_file() else path / f"{name.rpartition('/')[2]}.txt"
        if file.is_file():
            found[name] = _labelled(file, clouds)
    return found


def _labelled(file: Path, clouds: Sequence[Source]) -> list[FirstBox]:
    """The first label of each track."""
    rect = clouds[0].details.rect_from_sensor
    if rect is None:
        raise UserError(f"labels {file} are in a camera's frame, but there is no calibration beside the clouds")
    sensor_from_rect = torch.linalg.inv(torch.tensor(rect, dtype=torch.float64).view(4, 4))
    by_frame = {cloud.details.frame: cloud for cloud in clouds}
    found: dict[tuple[str, int], FirstBox] = {}
    for label in sorted(read_labels(file), key=lambda label: label.frame):
        key = label.category, label.track
        if key not in found and label.frame in by_frame:
            box = boxes3d.from_kitti(label.numbers[None], sensor_from_rect)[0]
            identity = f"{label.category}-{label.track}"
            found[key] = FirstBox(identity, label.category, by_frame[label.frame].name, box, "sensor")
    return list(found.values())
