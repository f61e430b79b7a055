"""A look at data in COCO's format: the annotation file, its images, and whether a config fits them."""

from __future__ import annotations

import os

import numpy as np
from mmdet.datasets import CocoPanopticDataset

from perception.datasets.class_names import listed
from perception.datasets.coco import CocoObjects, check_things
from perception.datasets.coco_file import match_categories
from perception.datasets.images import UnreadableImageError, read_image
from perception.datasets.panoptic_code import rgb2id
from perception.engine.errors import UserError

from .coco_facts import CocoFacts, coco_facts
from .config import DataSet
from .files import SAMPLE, look_at_headers, look_for_files
from .report import Findings, Section, some


def look_at_coco(dataset: DataSet, limit: int = SAMPLE) -> tuple[Section, CocoFacts | None]:
    """Everything that is wrong with one data set.

    Args:
        dataset: of a type derived from mmdet's ``CocoDataset``.
        limit: so many image headers are read at most.

    Returns:
        The section of the report, and what the file says, if it can be read at all.
    """
    section = Section(f"{dataset.split} ({dataset.ann_file})")
    findings = section.findings
    try:
        facts = coco_facts(dataset.ann_file)
    except UserError as error:
        findings.error(str(error))
        return section, None
    panoptic = issubclass(dataset.kind, CocoPanopticDataset)
    if any(facts.used) and facts.panoptic != panoptic:
        kinds = ("annotations of objects (boxes)", "panoptic annotations (segments_info)")
        findings.error(f"the file holds {kinds[facts.panoptic]}; this recipe needs {kinds[panoptic]}")
        return section, None
    findings.add(facts.findings)
    _look_at_names(dataset, facts, findings)
    folder = dataset.folder("img")
    there = look_for_files(folder, facts.names, findings)
    sizes = [(facts.widths[place], facts.heights[place]) for place in there]
    look_at_headers(folder, [facts.names[place] for place in there], sizes, findings, limit)
    if panoptic:
        _look_for_maps(dataset, facts, findings, limit)
    elif any(step.get("with_mask") for step in dataset.steps()) and facts.bare:
        findings.error(
            f"{facts.bare} of {sum(facts.used)} objects have no segmentation, and the recipe trains masks",
            "use a recipe for boxes, or annotations with masks",
        )
    _look_at_filter(dataset, facts, findings)
    section.facts += statistics(facts, dataset.classes)
    return section, facts


def statistics(facts: CocoFacts, classes: tuple[str, ...]) -> list[str]:
    """Numbers of images and objects, their sizes, and the objects of each class."""
    objects = np.array(facts.objects)
    empty = int((objects == 0).sum())
    lines = [
        f"{len(facts.names)} images, {empty} of them without objects; {sum(facts.usable)} objects "
        f"({sum(facts.used)} annotations)"
    ]
    widths, heights = np.array(facts.widths), np.array(facts.heights)
    if facts.names and widths.any():
        lines.append(
            f"images {widths.min():.0f} x {heights.min():.0f} to {widths.max():.0f} x {heights.max():.0f} pixels, "
            f"median {np.median(widths):.0f} x {np.median(heights):.0f}; up to {objects.max()} objects in one"
        )
    if facts.areas:
        low, first, middle, third, high = facts.areas
        shares = ", ".join(
            f"{name} {share:.0%}" for name, share in zip(("small (< 32)", "medium", "large (>= 96)"), facts.small)
        )
        lines.append(
            f"objects {low:.0f} to {high:.0f} pixels (root of the box's area), quartiles {first:.0f}, {middle:.0f}, "
            f"{third:.0f}; {shares}"
        )
    counts = dict(zip(facts.class_names, facts.usable))
    named = [name for name in classes if name in counts] or list(counts)
    lines.append("classes: " + ", ".join(f"{name} {counts[name]}" for name in named))
    return lines


def _look_at_names(dataset: DataSet, facts: CocoFacts, findings: Findings) -> None:
    classes, used = dataset.classes, dict(zip(facts.class_names, facts.used))
    subset, absent = bool(dataset.cfg.get("subset")), tuple(dataset.cfg.get("absent") or ())
    try:
        match_categories(facts.class_names, used, classes, facts.file, subset, absent)
        if facts.panoptic:
            check_things(facts.categories, _metainfo(dataset), facts.file)
    except UserError as error:
        findings.error(str(error))
        return
    if not issubclass(dataset.kind, CocoObjects):
        order = [name for name in facts.class_names if name in classes]
        if order != list(classes):
            findings.error(
                f"the config's {dataset.kind.__name__} takes labels from the order of the file ({listed(order)}), not "
                f"of the classes ({listed(classes)})",
                "use perception.datasets.coco.CocoObjects, which goes by name",
            )
    unseen = [name for name in classes if not dict(zip(facts.class_names, facts.usable)).get(name)]
    if unseen and len(unseen) < len(classes):
        findings.warn(f"{len(unseen)} of {len(classes)} classes have no objects: {listed(unseen)}")


def _metainfo(dataset: DataSet) -> dict:
    return {**dataset.kind.METAINFO, **(dataset.cfg.get("metainfo") or {})}


def _look_for_maps(dataset: DataSet, facts: CocoFacts, findings: Findings, limit: int) -> None:
    folder = dataset.folder("seg")
    if not folder:
        findings.error("data_prefix names no folder 'seg' of label maps")
        return
    maps = [file or name.replace(".jpg", ".png") for file, name in zip(facts.maps, facts.names)]
    there = look_for_files(folder, maps, findings, what="label maps")
    sizes = [(facts.widths[place], facts.heights[place]) for place in there]
    look_at_headers(folder, [maps[place] for place in there], sizes, findings, limit, what="label maps")
    known = set(there)
    sample = {int(place): segments for place, segments in facts.segments.items() if int(place) in known}
    _look_at_segments({os.path.join(folder, maps[place]): segments for place, segments in sample.items()}, findings)


def _look_at_segments(sample: dict[str, list], findings: Findings) -> None:
    """Label maps against ids and areas of their segments in the annotations.

    Args:
        sample: (id, area) of the segments, by the path of the map.
    """
    absent, unknown, areas = [], [], []
    for path, segments in sample.items():
        try:
            ids, counts = np.unique(rgb2id(read_image(path)), return_counts=True)
        except UnreadableImageError:
            continue  # named with the maps
        pixels = dict(zip(ids.tolist(), counts.tolist()))
        stated = dict(segments)
        name = os.path.basename(path)
        absent += [name] if stated.keys() - pixels.keys() else []
        unknown += [name] if pixels.keys() - stated.keys() - {0} else []
        areas += [name] if any(abs(pixels.get(key, area) - area) > 0.01 * area + 1 for key, area in segments) else []
    for names, what, advice in (
        (absent, "lack segments of the annotations", "the code of a segment is red + 256 green + 65536 blue"),
        (unknown, "have segments that the annotations do not list", "0 is the only code without a segment"),
        (areas, "have segments of another area than the annotations state", "panoptic quality counts with these areas"),
    ):
        if names:
            findings.error(
                f"{len(names)} of {len(sample)} label maps that were looked at {what}: {some(names)}", advice
            )


def _look_at_filter(dataset: DataSet, facts: CocoFacts, findings: Findings) -> None:
    """Whether anything is left once the config's filter has been applied."""
    if not any(facts.usable) and not findings.errors:
        say = findings.warn if dataset.split == "test" else findings.error
        say(f"the file has no objects: none of its {len(facts.names)} images can be used")
        return
    chosen = {name: count for name, count in zip(facts.class_names, facts.usable) if name in dataset.classes}
    if chosen and not any(chosen.values()) and any(facts.usable):
        findings.error(f"no object of the classes {listed(dataset.classes)} is left")
    limits = dataset.cfg.get("filter_cfg") or {}
    if dataset.cfg.get("test_mode") or not limits or not facts.names:
        return
    small = np.minimum(facts.widths, facts.heights) < limits.get("min_size", 0)
    empty = (np.array(facts.objects) == 0) & bool(limits.get("filter_empty_gt"))
    most = np.inf if limits.get("max_objects") is None else limits["max_objects"]
    crowded = np.array(facts.objects) > most
    if (small | empty | crowded).all():
        findings.error(
            f"no image is left to train on: {int(small.sum())} are smaller than {limits.get('min_size', 0)} pixels "
            f"(filter_cfg.min_size), {int(empty.sum())} have no objects"
            + (f", {int(crowded.sum())} more than {most} (filter_cfg.max_objects)" if crowded.any() else "")
        )
        return
    for left_out, what, advice in (
        (small, f"are smaller than {limits.get('min_size')} pixels", "lower filter_cfg.min_size"),
        (crowded, f"have more than {most:g} objects", "raise filter_cfg.max_objects"),
    ):
        names = [facts.names[place] for place in np.flatnonzero(left_out)]
        if names:
            findings.warn(
                f"{len(names)} of {len(left_out)} images {what} and are left out: {some(names)}",
                f"{advice} of the training data set to keep them",
            )
