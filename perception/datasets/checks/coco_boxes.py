"""Rules for boxes and areas of objects in COCO's format."""

from __future__ import annotations

import numpy as np

from .coco_lists import Images, Named, is_number
from .report import Findings, some

_MANY = 0.2
"""A share of boxes beyond their images that is no slip any more."""

_FEW = 10
_NUMBERS = frozenset([int, float])


def read_boxes(entries: list[dict], findings: Findings, named: Named) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4), and which of them are four finite numbers."""
    given = [entry.get("bbox") for entry in entries]
    sound = np.array([is_box(box) for box in given], bool)
    boxes = np.array([box if fine else (0, 0, 0, 0) for box, fine in zip(given, sound)], np.float64).reshape(-1, 4)
    missing = [place for place, box in enumerate(given) if box is None or box == []]
    if missing:
        findings.error(
            f"{len(missing)} of {len(given)} objects have no bbox: {some(named(missing))}",
            "add [x, y, width, height] in pixels",
        )
    odd = [place for place in np.flatnonzero(~sound) if given[place] is not None and given[place] != []]
    if odd:
        findings.error(
            f"{len(odd)} of {len(given)} objects have a bbox that is not four numbers: {some(named(odd))}, "
            f"the first is {given[odd[0]]!r:.80}",
            "numbers must stand without quotes" if isinstance(given[odd[0]], list) else "",
        )
    finite = np.isfinite(boxes).all(1)
    bad = np.flatnonzero(sound & ~finite)
    if len(bad):
        findings.error(f"{len(bad)} of {len(given)} boxes have numbers that are not finite: {some(named(bad))}")
    sound &= finite
    boxes[~sound] = 0
    return boxes, sound


def look_at_boxes(boxes, sound, image, images: Images, entries, findings: Findings, named: Named) -> np.ndarray:
    """Which boxes are at least a pixel wide and high and reach into their image."""
    width, height = (np.append(side, 0)[image] for side in (images.widths, images.heights))
    sized = sound & (width > 0) & (height > 0)
    x, y, w, h = boxes.T
    negative = np.flatnonzero(sound & ((w < 0) | (h < 0)))
    if len(negative):
        findings.error(
            f"{len(negative)} of {len(boxes)} boxes have a negative width or height: {some(named(negative))}",
            "a bbox is [x, y, width, height]",
        )
    overlap = (np.minimum(x + w, width) > np.maximum(x, 0)) & (np.minimum(y + h, height) > np.maximum(y, 0))
    large = (w >= 1) & (h >= 1)
    beyond = sized & large & ((x < -1) | (y < -1) | (x + w > width + 1) | (y + h > height + 1))
    count = max(int((sized & large).sum()), 1)
    if sized.any() and (np.abs(boxes[sized]) <= 1.01).all():
        findings.error(
            f"all {int(sized.sum())} boxes lie within 0 and 1", "they are shares of the image's size; pixels are needed"
        )
        return np.zeros(len(boxes), bool)
    as_corners = ((w > x) & (h > y) & (w <= width + 1) & (h <= height + 1))[sized & large].all()
    # Boxes are hardly ever all further across than from the border, unless those are their far corners.
    if beyond.sum() > (0 if as_corners and count >= _FEW else _MANY * count):
        if as_corners:
            findings.error(
                f"{int(beyond.sum())} of {count} boxes reach beyond their image, and all would fit "
                f"as [x1, y1, x2, y2]: {some(named(np.flatnonzero(beyond)))}",
                "a bbox is [x, y, width, height]; subtract x1 and y1 from the last two numbers",
            )
        else:
            findings.error(
                f"{int(beyond.sum())} of {count} boxes reach beyond their image: {some(named(np.flatnonzero(beyond)))}",
                "were the images resized, or are width and height exchanged? A bbox is [x, y, width, height] in pixels",
            )
    elif beyond.any():
        findings.warn(
            f"{int(beyond.sum())} of {count} boxes reach beyond their image: {some(named(np.flatnonzero(beyond)))}",
            "training uses what lies within",
        )
    tiny = np.flatnonzero(sound & ~large & (w >= 0) & (h >= 0))
    if len(tiny):
        findings.warn(
            f"{len(tiny)} of {len(boxes)} boxes are less than a pixel wide or high: {some(named(tiny))}",
            "they are left out of training",
        )
    outside = np.flatnonzero(sized & large & ~overlap)
    if len(outside):
        findings.warn(
            f"{len(outside)} of {len(boxes)} boxes lie outside their image: {some(named(outside))}",
            "they are left out of training",
        )
    return sound & large & (overlap | ~sized)


def crowds(entries: list[dict], findings: Findings, named: Named) -> np.ndarray:
    """Which objects are crowds."""
    given = [entry.get("iscrowd") or 0 for entry in entries]
    odd = [place for place, value in enumerate(given) if value not in (0, 1) or isinstance(value, str)]
    if odd:
        findings.error(
            f"{len(odd)} of {len(given)} objects have an iscrowd other than 0 and 1: {some(named(odd))}, "
            f"the first is {given[odd[0]]!r:.40}"
        )
    return np.array([bool(value) and value != "0" for value in given], bool)


def areas(entries: list[dict], findings: Findings, named: Named) -> None:
    """Areas that are given have to be numbers."""
    odd = [
        place
        for place, entry in enumerate(entries)
        if entry.get("area") is not None and not (is_number(entry["area"]) and entry["area"] >= 0)
    ]
    if odd:
        findings.error(
            f"{len(odd)} of {len(entries)} objects have an area that is no number from 0 on: {some(named(odd))}, "
            f"the first is {entries[odd[0]]['area']!r:.40}",
            "leave 'area' out, and it is computed",
        )


def duplicates(boxes, image, category, sound, findings: Findings, named: Named) -> None:
    """Objects that come more than once."""
    places = np.flatnonzero(sound & (image >= 0))
    # By a hash of 64 bits: sorting whole rows takes ten times as long.
    rows = np.column_stack([image, category, boxes])[places].view(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        rows = (rows ^ (rows >> np.uint64(shift))) * np.uint64(factor)
    weights = np.random.default_rng(0).integers(1, 2**63, rows.shape[1], np.uint64) | np.uint64(1)
    keys = ((rows ^ (rows >> np.uint64(31))) * weights).sum(1)
    _, first = np.unique(keys, return_index=True)
    again = np.setdiff1d(places, places[first])
    if len(again):
        findings.warn(
            f"{len(again)} of {len(boxes)} objects have image, category and box of another: {some(named(again))}",
            "they count twice; remove the copies",
        )


def is_box(box: object) -> bool:
    """Whether a value is a list of four numbers."""
    return isinstance(box, list) and len(box) == 4 and _NUMBERS.issuperset(map(type, box))
