"""Rules for the lists of an annotation file in COCO's format: ids, names, sizes, and what belongs to what."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from perception.datasets.class_names import listed

from .report import Findings, some

Named = Callable[[Iterable[int]], Iterator[str]]
"""Objects by their places, as a message names them."""


@dataclass
class Images:
    """The images of a file: ids, names, sizes (0 where the file has none) and the place of each id."""

    ids: list[int | str]
    names: list[str]
    widths: np.ndarray
    heights: np.ndarray
    places: dict


def look_at_images(entries: list[dict], findings: Findings) -> Images:
    """Ids, names and sizes."""
    names = [str(entry["file_name"]) for entry in entries]
    if not entries:
        findings.error("the file lists no images")
    _say(
        findings.error,
        "images have a name that is no text",
        _where(entries, "file_name", lambda v: not isinstance(v, str) or not v),
        entries,
    )
    _say(
        findings.error,
        "images have an id that is neither a number nor text",
        _where(entries, "id", lambda v: not isinstance(v, (int, float, str))),
        entries,
        names,
    )
    ids = [entry["id"] if isinstance(entry["id"], (int, float, str)) else repr(entry["id"]) for entry in entries]
    twice = [(number, count) for number, count in Counter(ids).items() if count > 1]
    if twice:
        example = [name for name, number in zip(names, ids) if number == twice[0][0]]
        findings.error(
            f"image ids are not unique: {sum(count for _, count in twice)} of {len(ids)} images share {len(twice)} ids "
            f"with others, such as id {twice[0][0]!r} of {some(example)}",
            "objects cannot be told apart; give every image its own id (files that were merged need new ones)",
        )
    same = [name for name, count in Counter(names).items() if count > 1]
    if same:
        findings.error(
            f"{len(same)} files are listed as more than one image: {some(same)}",
            "each entry would be trained on with its own objects alone; merge them",
        )
    sizes = np.array([[_size(entry.get("width")), _size(entry.get("height"))] for entry in entries]).reshape(-1, 2)
    unsized = np.flatnonzero((sizes == 0).any(1))
    _say(
        findings.error, "images have no width and height (whole numbers above 0)", unsized, entries, names,
        "add the sizes in pixels (whole numbers) of the upright images",
    )  # fmt: skip
    return Images(ids, names, sizes[:, 0], sizes[:, 1], {number: place for place, number in enumerate(ids)})


def image_places(entries: list[dict], images: Images, findings: Findings) -> np.ndarray:
    ids = [entry["image_id"] for entry in entries]
    places = np.array(
        [images.places.get(number, -1) if isinstance(number, (int, float, str)) else -1 for number in ids], int
    )
    lost = np.flatnonzero(places < 0)
    if len(lost):
        example = ids[lost[0]]
        text = isinstance(example, str) and example.isdecimal() and int(example) in images.places
        number = isinstance(example, int) and str(example) in images.places
        findings.error(
            f"{len(lost)} of {len(ids)} annotations are of images that the file does not list: image_id "
            f"{some(dict.fromkeys(repr(ids[place]) for place in lost))}",
            "ids are numbers in one place and text in the other"
            if text or number
            else "add the images, or remove these",
        )
    return places


def category_places(ids: Sequence, categories: list[dict], findings: Findings) -> np.ndarray:
    known = {entry["id"]: place for place, entry in enumerate(categories) if isinstance(entry["id"], (int, float, str))}
    places = np.array([known.get(number, -1) if isinstance(number, (int, float, str)) else -1 for number in ids], int)
    lost = np.flatnonzero(places < 0)
    if len(lost):
        strange = dict.fromkeys(repr(ids[place]) for place in lost)
        findings.error(
            f"{len(lost)} of {len(ids)} objects are of categories that the file does not list: "
            f"category_id {some(strange)}",
            f"ids of its categories: {listed(map(repr, known))}",
        )
    for key in ("id", "name"):
        twice = [value for value, count in Counter(map(str, (entry[key] for entry in categories))).items() if count > 1]
        if twice:
            findings.error(f"category {key} {listed(twice)} comes more than once", "labels would be ambiguous")
    odd = [entry["name"] for entry in categories if not isinstance(entry["name"], str) or not entry["name"].strip()]
    if odd:
        findings.error(f"{len(odd)} categories have no text as name: {some(map(repr, odd))}")
    names = [entry["name"] for entry in categories if isinstance(entry["name"], str)]
    plain = Counter(name.strip().casefold() for name in names)
    alike = [name for name in names if plain[name.strip().casefold()] > 1]
    if len(set(alike)) > 1:
        findings.warn(
            f"categories differ by case or spaces alone: {some(map(repr, alike))}", "are they the same class?"
        )
    return places


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _size(value: object) -> float:
    return value if is_number(value) and value > 0 and value == int(value) else 0


def _where(entries: list[dict], key: str, wrong) -> list[int]:
    return [place for place, entry in enumerate(entries) if wrong(entry.get(key))]


def _say(level, what: str, places: Sequence[int], entries: list, names: Sequence[str] = (), advice: str = "") -> None:
    if len(places):
        shown = some(names[place] if names else repr(entries[place])[:60] for place in places)
        level(f"{len(places)} of {len(entries)} {what}: {shown}", advice)
