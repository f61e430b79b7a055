"""What is written of targets that are followed: JSON, KITTI's labels, pictures and a moving overview."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perception.datasets.clouds.cloud import Cloud
from perception.geometry import boxes3d, se3
from perception.inference.names import derived_names
from perception.inference.scan import Source
from perception.inference.writing import Files, Record, Records, Writer

from .pictures import draw_tracks
from .predictor import Track, Tracks

TRACKS, LABELS, PICTURES, OVERVIEWS = "tracks.json", "labels", "images", "overviews"

_CAMERA_AXES = ((0.0, -1, 0, 0), (0, 0, -1, 0), (1, 0, 0, 0), (0, 0, 0, 1))
"""To a camera at the sensor that looks ahead, for labels of clouds without a calibration."""
_BOX = "x, y, z of the middle, length, width, height in metres; yaw in radians, from x to y"
_OVERVIEW = 640  # pixels across
_MILLISECONDS = 100


class TrackWriter(Writer):
    """A line is `{"frame", "tracks": [{"id", "category", "number", "box", "score", "points_in_search", "status",
    "kitti"}], "missed", "refused"}`.

    Args:
        names: of all clouds.
        pictures: draw pictures and overviews.
        ahead: where the vehicle's front is in the clouds, radians from x to y.
    """

    def __init__(self, names: Sequence[str], pictures: bool, ahead: float = 0.0) -> None:
        turn = se3.rotation_about_z(torch.tensor(-ahead, dtype=torch.float64))
        self._vehicle_from_sensor = se3.compose(turn, torch.zeros(3, dtype=torch.float64))
        self._pictures = derived_names(names, (), ".jpg") if pictures else {}

    def takes(self, found: Any) -> bool:
        return isinstance(found, Tracks)

    def wrote(self, record: Record) -> bool:
        return "tracks" in record

    def files(self, record: Record) -> Iterable[str]:
        if self._pictures:
            yield f"{PICTURES}/{self._pictures[record['file_name']]}"

    def write(self, files: Files, source: Source, sample: Cloud, found: Tracks, meta: Any) -> Record:
        sensor_from_world = se3.invert(found.world_from_sensor)
        vehicle_from_world = self._vehicle_from_sensor @ sensor_from_world
        if self._pictures:
            turned = se3.transform_points(self._vehicle_from_sensor, torch.from_numpy(sample.xyz).double()).numpy()
            picture = draw_tracks(turned, found.tracks, vehicle_from_world)
            with files.replacing(f"{PICTURES}/{self._pictures[source.name]}") as file:
                Image.fromarray(picture).save(file, "JPEG", quality=88)
        record: Record = {"frame": found.frame, "frame_number": source.details.frame}
        # A calibration leads from the sensor as it is; without one, the camera looks where the vehicle does.
        rect = source.details.rect_from_sensor
        calibrated = (vehicle_from_world, _CAMERA_AXES) if rect is None else (sensor_from_world, rect)
        record["tracks"] = [_entry(track, *calibrated) for track in found.tracks]
        if found.missed:
            record["missed"] = found.missed
        if found.refused:
            record["refused"] = found.refused
        return record

    def sequence_files(self, sequence: str) -> Iterable[str]:
        yield f"{LABELS}/{sequence}.txt"
        if self._pictures:
            yield f"{OVERVIEWS}/{sequence}.gif"

    def write_sequence(self, files: Files, sequence: str, records: Records, meta: Any) -> None:
        with files.replacing(f"{LABELS}/{sequence}.txt") as file:
            for record in records():
                for track in record["tracks"]:
                    file.write(_label(record["frame_number"], track).encode())
        if not self._pictures:
            return
        frames = self._frames(files, records())
        first = next(frames, None)
        if first is not None:
            # A file that is written as a whole: Pillow goes back and forth in it.
            buffer = io.BytesIO()
            first.save(buffer, "GIF", save_all=True, append_images=frames, duration=_MILLISECONDS, loop=0)
            with files.replacing(f"{OVERVIEWS}/{sequence}.gif") as file:
                file.write(buffer.getbuffer())

    def finish(self, files: Files, records: Records, meta: Any) -> None:
        sequences: dict[str, Any] = {}
        for record in records():
            sequence = sequences.setdefault(record["sequence"], {"frame": record["frame"], "tracks": {}})
            if "refused" in record:
                sequence.setdefault("refused", {}).update(record["refused"])
            if "missed" in record:
                sequence["missed"] = sequence.get("missed", 0) + record["missed"]
            for track in record["tracks"]:
                kept = sequence["tracks"].setdefault(
                    track["id"], {"category": track["category"], "number": track["number"], "boxes": []}
                )
                entry = {key: track[key] for key in ("box", "score", "points_in_search", "status")}
                kept["boxes"].append({"cloud": record["file_name"], **entry})
        content = {
            "box": "x, y, z of the middle, length, width, height (m), yaw (rad, from x to y)",
            "sequences": sequences,
        }
        with files.replacing(TRACKS) as file:
            file.write(json.dumps(content).encode())

    def clear(self, files: Files) -> None:
        files.remove(TRACKS)

    def _frames(self, files: Files, records: Iterator[Record]) -> Iterator[Image.Image]:
        for record in records:
            with Image.open(files.root / PICTURES / self._pictures[record["file_name"]]) as picture:
                picture.thumbnail((_OVERVIEW, _OVERVIEW))
                yield picture.quantize(64, dither=Image.Dither.NONE)


def _entry(track: Track, velodyne_from_world: Tensor, rect_from_velodyne: Sequence) -> dict[str, Any]:
    local = boxes3d.transform(track.box[None], velodyne_from_world)
    rect = torch.tensor(rect_from_velodyne, dtype=torch.float64).view(4, 4)
    return {
        "id": track.identity,
        "category": track.category,
        "number": track.number,
        "box": _rounded(track.box),
        "score": None if math.isnan(track.score) else round(track.score, 6),
        "points_in_search": track.points_in_search,
        "status": track.status,
        "kitti": _rounded(boxes3d.to_kitti(local, rect)[0]),
    }


def _rounded(values: Tensor) -> list[float]:
    return np.round(values.double().numpy(), 6).tolist()


def _label(frame: int, track: dict[str, Any]) -> str:
    """A line of KITTI's tracking labels, which have no truncation, occlusion or box in an image here."""
    numbers = " ".join(f"{value:.6f}" for value in track["kitti"])
    score = "" if track["score"] is None else f" {track['score']:.6f}"
    return f"{frame} {track['number']} {track['category']} -1 -1 -10 -1 -1 -1 -1 {numbers}{score}\n"
