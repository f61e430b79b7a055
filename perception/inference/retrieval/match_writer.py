"""What was found for queries: lines, a table, points on a map, pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from perception.geometry.geodesy import great_circle
from perception.inference.images.image_writer import picture_names
from perception.inference.retrieval.picture import draw
from perception.inference.retrieval.places import Place
from perception.inference.retrieval.query_reader import Panorama
from perception.inference.retrieval.ranking import DIGITS, Found
from perception.inference.scan import Source
from perception.inference.writing import Files, Record, Records, Writer

TABLE, POINTS, NUMBERS, PICTURES = "results.csv", "results.geojson", "summary.json", "images"
RADII = (1, 5, 10, 25, 50)
"""Metres."""

_COLUMNS = ("query", "tile", "similarity", "rerank", "latitude", "longitude", "row", "column", "error_m")
_PLACE_DIGITS = 8


class MatchWriter(Writer):
    """A line is `{"matches": [...], "position": {...}}`, and `"truth"` where the query's own place is known.

    Args:
        names: of all queries.
        pictures: draw pictures.
        truths: places of queries by name, to compare with.
    """

    def __init__(self, names: Sequence[str], pictures: bool, truths: dict[str, Place]) -> None:
        self._pictures = picture_names(names) if pictures else {}
        self._truths = truths

    def takes(self, found: Any) -> bool:
        return isinstance(found, Found)

    def wrote(self, record: Record) -> bool:
        return "matches" in record

    def files(self, record: Record) -> Iterable[str]:
        if self._pictures:
            yield f"{PICTURES}/{self._pictures[record['file_name']]}"

    def write(self, files: Files, source: Source, sample: Panorama, found: Found, meta: Any) -> Record:
        side = found.tile_pixels
        record: Record = {
            "matches": [_match(match) for match in found.matches],
            "position": {
                "tile": found.matches[0].name,
                "row": round((found.fix.down + 0.5) * side, 2),
                "column": round((found.fix.right + 0.5) * side, 2),
                "probability": round(found.fix.probability, DIGITS),
                **_degrees(found.place),
            },
        }
        truth = self._truths.get(source.name)
        if truth is not None:
            record["truth"] = _degrees(truth)
            if found.place is not None:
                record["truth"]["error_m"] = round(_distance(found.place, truth), 3)
        if self._pictures:
            target = f"{PICTURES}/{self._pictures[source.name]}"
            with files.replacing(target) as file:
                kind = "PNG" if target.lower().endswith(".png") else "JPEG"
                draw(sample.pixels, found).save(file, kind, **({"quality": 92} if kind == "JPEG" else {}))
        return record

    def finish(self, files: Files, records: Records, meta: Any) -> None:
        table = io.StringIO()
        rows = csv.DictWriter(table, _COLUMNS, lineterminator="\n")
        rows.writeheader()
        points, errors, count = [], [], 0
        for record in records():
            count += 1
            rows.writerow(_row(record))
            position = record["position"]
            if "latitude" in position:
                points.append(_point(record))
            if "error_m" in record.get("truth", {}):
                errors.append(record["truth"]["error_m"])
        with files.replacing(TABLE) as file:
            file.write(table.getvalue().encode(errors="surrogateescape"))
        if points:
            with files.replacing(POINTS) as file:
                file.write((json.dumps({"type": "FeatureCollection", "features": points}) + "\n").encode())
        else:
            files.remove(POINTS)
        numbers: dict[str, Any] = {"queries": count, "unusable_tiles": (meta or {}).get("unusable", {})}
        if errors:
            numbers |= _numbers(np.array(errors))
        with files.replacing(NUMBERS) as file:
            file.write((json.dumps(numbers, indent=2) + "\n").encode())

    def clear(self, files: Files) -> None:
        for name in (TABLE, POINTS, NUMBERS):
            files.remove(name)


def _match(match: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"tile": match.name, "similarity": match.similarity}
    if match.rerank is not None:
        entry["rerank"] = match.rerank
    if match.duplicates:
        entry["duplicates"] = list(match.duplicates)
    return entry | _degrees(match.place)


def _degrees(place: Place | None) -> dict[str, Any]:
    if place is None:
        return {}
    return {"latitude": round(place.latitude, _PLACE_DIGITS), "longitude": round(place.longitude, _PLACE_DIGITS)}


def _distance(one: Place, other: Place) -> float:
    return float(great_circle(np.array([one.latitude, one.longitude]), np.array([other.latitude, other.longitude])))


def _row(record: Record) -> dict[str, Any]:
    best, position = record["matches"][0], record["position"]
    return {
        "query": record["file_name"],
        "tile": best["tile"],
        "similarity": best["similarity"],
        "rerank": best.get("rerank", ""),
        "latitude": position.get("latitude", ""),
        "longitude": position.get("longitude", ""),
        "row": position["row"],
        "column": position["column"],
        "error_m": record.get("truth", {}).get("error_m", ""),
    }


def _point(record: Record) -> dict[str, Any]:
    position, best = record["position"], record["matches"][0]
    return {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": [position["longitude"], position["latitude"]]},
        "properties": {
            "query": record["file_name"],
            "tile": best["tile"],
            "similarity": best["similarity"],
            "probability": position["probability"],
        },
    }


def _numbers(errors: np.ndarray) -> dict[str, Any]:
    within = {f"within_{radius}m": round(100 * float((errors <= radius).mean()), 2) for radius in RADII}
    return {"compared": len(errors), "median_m": round(float(np.median(errors)), 3), **within}
