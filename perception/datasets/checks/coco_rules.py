"""Rules that every annotation file in COCO's format has to keep, whatever it is used for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from .coco_boxes import areas, crowds, duplicates, is_box, look_at_boxes, read_boxes
from .coco_lists import Images, category_places, image_places, is_number
from .coco_masks import look_at_segmentations
from .report import Findings, some

_SAMPLED = 64
"""Of so many images, segments are compared with their label maps."""

_MANY_CROWDS = 0.2
"""A share of crowds above which some are probably single objects; COCO itself has one in a hundred."""


@dataclass
class Objects:
    """Figures of a file's objects: see :class:`~perception.datasets.checks.coco_facts.CocoFacts`."""

    per_image: np.ndarray
    per_category: np.ndarray
    areas: np.ndarray
    bare: int
    maps: list[str]
    segments: dict[int, list]


def look_at_objects(content: dict, images: Images, findings: Findings) -> Objects:
    """Boxes, areas, crowds and segmentations of objects."""
    entries, categories = content["annotations"], content["categories"]
    image = image_places(entries, images, findings)
    category = category_places([entry.get("category_id") for entry in entries], categories, findings)

    def named(places: Iterable[int]) -> Iterator[str]:
        for place in places:
            there = images.names[image[place]] if image[place] >= 0 else f"image id {entries[place]['image_id']!r}"
            yield f"object {place + 1} ({there})"

    corners, sound = read_boxes(entries, findings, named)
    inside = look_at_boxes(corners, sound, image, images, entries, findings, named)
    crowd = crowds(entries, findings, named)
    areas(entries, findings, named)
    bare = look_at_segmentations(entries, image, images, corners, findings, named)
    duplicates(corners, image, category, sound, findings, named)
    ignored = np.array([bool(entry.get("ignore")) for entry in entries], bool)
    usable = inside & ~crowd & ~ignored & (image >= 0) & (category >= 0)
    if entries and not usable.any():
        findings.error(
            f"none of the {len(entries)} objects can be trained on or evaluated: {int((~inside).sum())} have no box "
            f"within their image, {int(crowd.sum())} are crowds (iscrowd), {int(ignored.sum())} are marked 'ignore'"
        )
    elif crowd.sum() > _MANY_CROWDS * len(entries):
        findings.warn(
            f"{int(crowd.sum())} of {len(entries)} objects are crowds (iscrowd), which training and evaluation leave "
            f"out: {some(named(np.flatnonzero(crowd)))}",
            "objects that are single ones want an iscrowd of 0, whatever form their masks have",
        )
    return Objects(
        per_image=np.bincount(image[usable], minlength=len(images.names)),
        per_category=np.bincount(category[usable], minlength=len(categories)),
        areas=np.prod(corners[usable, 2:], axis=1),
        bare=bare,
        maps=[],
        segments={},
    )


def look_at_segments(content: dict, images: Images, findings: Findings) -> Objects:
    """Entries of panoptic label maps."""
    entries, categories = content["annotations"], content["categories"]
    image = image_places(entries, images, findings)
    maps = [""] * len(images.names)
    for entry, place in zip(entries, image):
        if place >= 0 and isinstance(entry.get("file_name"), str):
            maps[place] = entry["file_name"].replace("\\", "/")
    segments = [(segment, place) for entry, place in zip(entries, image) for segment in entry["segments_info"]]
    broken = [place for segment, place in segments if not _is_segment(segment)]
    if broken:
        findings.error(
            f"{len(broken)} of {len(segments)} segments lack id, bbox or area as numbers: "
            f"{some(images.names[place] for place in broken if place >= 0)}"
        )
    category = category_places([segment.get("category_id") for segment, _ in segments], categories, findings)
    places = np.array([place for _, place in segments], int)
    if not segments:
        findings.error("the file lists no segments")
    usable = (category >= 0) & (places >= 0)
    return Objects(
        per_image=np.bincount(places[usable], minlength=len(images.names)),
        per_category=np.bincount(category[usable], minlength=len(categories)),
        areas=np.array([segment["area"] for segment, _ in segments] if not broken else [], float),
        bare=0,
        maps=maps,
        segments=_sampled(entries, image, broken),
    )


def _is_segment(entry: dict) -> bool:
    return isinstance(entry.get("id"), int) and is_box(entry.get("bbox")) and is_number(entry.get("area"))


def _sampled(entries: list[dict], image: np.ndarray, broken: list) -> dict[int, list]:
    """Ids and areas of the segments of a regular sample of images, by the image's place."""
    if broken:
        return {}
    sample = range(0, len(entries), max(1, -(-len(entries) // _SAMPLED)))
    return {
        int(image[number]): [[segment["id"], segment["area"]] for segment in entries[number]["segments_info"]]
        for number in sample
        if image[number] >= 0
    }
