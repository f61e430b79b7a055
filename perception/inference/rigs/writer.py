"""What is written of rigs: a file of results in nuScenes' format, a line for each frame, and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perception.datasets.driving.sheets import View, draw_sheet
from perception.datasets.palette import default_palette
from perception.evaluation.nuscenes_results import Detections, result_rows, usual_attribute, write_results
from perception.inference.names import derived_names
from perception.inference.scan import Source
from perception.inference.writing import Files, Record, Records, Writer

from .frames import RigDetails
from .predictor import Found, in_vehicle_frame
from .reader import RigFrame

RESULTS, PICTURES = "results_nusc.json", "images"
_DIGITS = 6


class RigWriter(Writer):
    """A line is `{"token", "scene", "timestamp", "frame": "ego", "boxes": [{"name", "score", "box", "velocity",
    "attribute"}], "looked_at", "global_from_ego"}`.

    Args:
        names: of all frames.
        pictures: draw pictures.
        score_thr: what pictures show.
    """

    def __init__(self, names: Sequence[str], pictures: bool, score_thr: float) -> None:
        self._pictures = derived_names(names, (), ".jpg") if pictures else {}
        self._score_thr = score_thr

    def takes(self, found: Any) -> bool:
        return isinstance(found, Found)

    def wrote(self, record: Record) -> bool:
        return "boxes" in record

    def files(self, record: Record) -> Iterable[str]:
        if self._pictures:
            yield f"{PICTURES}/{self._pictures[record['file_name']]}"

    def write(self, files: Files, source: Source, sample: RigFrame, found: Found, meta: Any) -> Record:
        details = source.details
        if self._pictures:
            picture = _draw(details, sample, found, self._score_thr, meta["classes"])
            with files.replacing(f"{PICTURES}/{self._pictures[source.name]}") as file:
                Image.fromarray(picture).save(file, "JPEG", quality=88)
        boxes = in_vehicle_frame(found, details)
        return {
            "token": details.token,
            "scene": details.scene,
            "timestamp": details.timestamp,
            "frame": "ego",
            "boxes": [
                _entry(box, score, meta["classes"][label])
                for box, score, label in zip(boxes, found.scores.tolist(), found.labels.tolist(), strict=True)
            ],
            "looked_at": list(found.offsets),
            "global_from_ego": None if details.global_from_ego is None else list(map(list, details.global_from_ego)),
        }

    def finish(self, files: Files, records: Records, meta: Any) -> None:
        with_poses = all(record["global_from_ego"] is not None for record in records())
        path = files.root / RESULTS
        write_results(path, map(_rows, records()), "global" if with_poses else "ego")

    def clear(self, files: Files) -> None:
        files.remove(RESULTS)


def _entry(box: Tensor, score: float, name: str) -> dict[str, Any]:
    values = np.round(box.numpy(), _DIGITS).tolist()
    known = bool(torch.isfinite(box[7:9]).all())
    speed = float(box[7:9].norm()) if known else 0.0
    return {
        "name": name,
        "score": round(score, _DIGITS),
        "box": values[:7],
        "velocity": values[7:9] if known else None,
        "attribute": usual_attribute(name, speed),
    }


def _rows(record: Record) -> tuple[str, list[dict]]:
    """A frame of the file of results, from its line; in the vehicle's frame where there are no poses."""
    still = torch.eye(4, dtype=torch.float64)
    unknown = [float("nan")] * 2
    boxes = [[*one["box"], *(one["velocity"] or unknown)] for one in record["boxes"]]
    pose = record["global_from_ego"]
    found = Detections(
        boxes=torch.tensor(boxes, dtype=torch.float64).view(-1, 9),
        scores=torch.tensor([one["score"] for one in record["boxes"]], dtype=torch.float64),
        names=[one["name"] for one in record["boxes"]],
        ego_from_lidar=still,
        global_from_ego=still if pose is None else torch.tensor(pose, dtype=torch.float64),
        attributes=[one["attribute"] for one in record["boxes"]],
    )
    return record["token"], result_rows(record["token"], found)


def _draw(details: RigDetails, sample: RigFrame, found: Found, score_thr: float, classes: Sequence[str]) -> np.ndarray:
    views = [
        View(image, np.array(camera.intrinsics), np.array(camera.lidar_from_camera))
        for camera, image in zip(details.cameras, sample.images, strict=True)
    ]
    shown = found.scores >= score_thr
    palette, labels = default_palette(len(classes)), found.labels[shown].tolist()
    colours = [palette[label] for label in labels]
    legend = {classes[label]: palette[label] for label in sorted(set(labels))}
    return draw_sheet(views, found.boxes[shown], colours, np.zeros((0, 3)), legend)
