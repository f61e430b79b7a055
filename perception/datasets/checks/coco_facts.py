"""What an annotation file in COCO's format says, looked into once and kept until the file changes."""

from __future__ import annotations

import gc
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from perception.datasets.coco_file import is_panoptic, read_coco, used_categories
from perception.engine.atomic import replacing

from .coco_lists import look_at_images
from .coco_rules import look_at_objects, look_at_segments
from .report import Findings


@dataclass
class CocoFacts:
    """The figures of a file that later questions need, without its objects.

    Attributes:
        file: the annotation file.
        panoptic: annotations are segments of label maps.
        ids, names, widths, heights: of each image, as the file states them.
        maps: panoptic label maps of the images, where the file names them.
        objects: number of usable objects of each image.
        categories: entries of the file.
        used: number of objects of each category, by its place in ``categories``.
        usable: of these, what training learns from: a box within the image, no crowd.
        bare: objects without segmentation.
        segments: of a sample of panoptic images, by place: ids and areas of the segments.
        areas: square roots of the areas of usable objects, in pixels: minimum, quartiles, maximum.
        small: shares of objects below 32 x 32 pixels, below 96 x 96, and above.
        findings: faults that do not depend on a config.
    """

    file: str
    panoptic: bool
    ids: list[int | str]
    names: list[str]
    widths: list[float]
    heights: list[float]
    maps: list[str]
    objects: list[int]
    categories: list[dict]
    used: list[int]
    usable: list[int]
    bare: int
    segments: dict[str, list]
    areas: list[float]
    small: list[float]
    findings: Findings = field(default_factory=Findings)

    @property
    def class_names(self) -> list[str]:
        """Names of the categories in the order of the file."""
        return [entry["name"] for entry in self.categories]


def coco_facts(path: str | Path) -> CocoFacts:
    """The facts of a file, from the cache where the file has not changed since.

    Raises:
        UserError: it cannot be read as COCO's format.
    """
    path = Path(path)
    stamp = _stamp(path)
    kept = _cache_file(path)
    known = _kept(kept, stamp)
    if known is not None:
        return known
    with _without_garbage_collection():
        facts = facts_of(read_coco(path), str(path))
    _keep(kept, stamp, facts)
    return facts


def facts_of(content: dict, file: str) -> CocoFacts:
    """The facts of a parsed file."""
    findings = Findings()
    images = look_at_images(content["images"], findings)
    panoptic = is_panoptic(content)
    look = look_at_segments if panoptic else look_at_objects
    objects = look(content, images, findings)
    sides = np.sqrt(objects.areas)
    categories = content["categories"]
    used = used_categories(content)
    return CocoFacts(
        file=file,
        panoptic=panoptic,
        ids=images.ids,
        names=images.names,
        widths=images.widths.tolist(),
        heights=images.heights.tolist(),
        maps=objects.maps,
        objects=objects.per_image.tolist(),
        categories=[
            {key: entry.get(key) for key in ("id", "name", "supercategory", "isthing")} for entry in categories
        ],
        used=[used[entry["id"]] for entry in categories],
        usable=objects.per_category.tolist(),
        bare=objects.bare,
        segments={str(place): segments for place, segments in objects.segments.items()},
        areas=np.percentile(sides, (0, 25, 50, 75, 100)).round(1).tolist() if len(sides) else [],
        small=[float(np.mean(sides < 32)), float(np.mean((sides >= 32) & (sides < 96))), float(np.mean(sides >= 96))]
        if len(sides)
        else [],
        findings=findings,
    )


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Collection walks through all objects time and again while millions are made, none of which is garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def cache_folder() -> Path:
    """Where facts are kept: ``perception/annotations`` in the user's cache folder."""
    # A user without a home folder has "~" expanded to itself, and nothing is kept.
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "perception", "annotations")


def _cache_file(path: Path) -> Path:
    return cache_folder() / f"{hashlib.sha1(str(path.resolve()).encode()).hexdigest()}.json"


def _stamp(path: Path) -> list:
    try:
        state = path.stat()
    except OSError:
        return []  # reading it says what is wrong
    return [_rules(), state.st_size, state.st_mtime_ns]


@cache
def _rules() -> str:
    """A mark of the rules themselves: what older ones found is not used."""
    sources = (file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha1(b"".join(sources)).hexdigest()


def _kept(file: Path, stamp: list) -> CocoFacts | None:
    try:
        content = json.loads(file.read_bytes())
        if content.pop("stamp") != stamp:
            return None
        return CocoFacts(**{**content, "findings": Findings.from_json(content["findings"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or of another version: the file is looked into again


def _keep(file: Path, stamp: list, facts: CocoFacts) -> None:
    content = {**asdict(facts), "findings": facts.findings.to_json(), "stamp": stamp}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as out:
            out.write(json.dumps(content).encode())
    except OSError:
        return  # without a place to keep it, the file is looked into every time
