"""A look at data in other formats than COCO's: the data set is built, and says itself what it refuses."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset

from perception.datasets.class_names import listed
from perception.datasets.dota import Patch
from perception.datasets.images import UnreadableImageError, read_header
from perception.datasets.seg_maps import Labels, read_seg_map, seg_map_fault
from perception.engine.errors import UserError

from .config import DataSet
from .files import SAMPLE, look_at_headers, look_for_files
from .report import Findings, Section, some

_MANY = 0.2


def look_at_built(dataset: DataSet, limit: int = SAMPLE) -> tuple[Section, list[str]]:
    """Everything that is wrong with one data set.

    Args:
        dataset: of any type of MMEngine.
        limit: so many images are looked into at most.

    Returns:
        The section of the report, and the paths of all images.
    """
    place = dataset.ann_file or ", ".join(dataset.folders) or dataset.cfg.get("data_root") or "no folder"
    section = Section(f"{dataset.split} ({place})")
    arguments = {key: value for key, value in dataset.cfg.items() if key not in ("type", "pipeline")}
    try:
        built = dataset.kind(**arguments, pipeline=[])
    except UserError as error:
        section.findings.error(str(error))
        return section, []
    infos = [built.get_data_info(place) for place in range(len(built))]
    if not infos:
        section.findings.error(f"no images are left of {dataset.cfg.get('data_root') or ''}")
        return section, []
    paths = [info["img_path"] for info in infos if "img_path" in info]
    there = look_for_files("", paths, section.findings)
    opened = look_at_headers("", [paths[place] for place in there], [(0, 0)] * len(there), section.findings, limit)
    for key in sorted(infos[0].keys() - {"img_path", "seg_map_path"}):
        if key.endswith("_path") and isinstance(infos[0][key], str):
            look_for_files(
                "", list(dict.fromkeys(info[key] for info in infos)), section.findings, what=f"{key[:-5]} files"
            )
    section.facts += _statistics(built, infos)
    if dataset.ann_file and "instances" in infos[0] and not _has_objects(infos):
        section.findings.error(f"none of the {len(infos)} images has an object", "is this the right folder of labels?")
    seen = [infos[there[place]] for place in opened]
    _look_at_places(seen, list(opened.values()), section.findings)
    if paths and "seg_map_path" in infos[0]:
        maps = [infos[place] for place in there]
        _look_at_maps(maps, built.metainfo["classes"], section, max(1, limit // 4))
    return section, paths


def _statistics(built: BaseDataset, infos: Sequence[dict]) -> list[str]:
    lines = [f"{len(infos)} {'images' if 'img_path' in infos[0] else 'samples'}"]
    classes = built.metainfo.get("classes") or ()
    if "instances" not in infos[0]:
        return [*lines, f"classes: {listed(classes)}"] if classes else lines
    objects = [
        (label, entry.get("ignore_flag"))
        for info in infos
        for entry in info["instances"]
        # mmrotate has one entry with empty lists where an image has no objects.
        for label in ([entry["bbox_label"]] if isinstance(entry["bbox_label"], int) else entry["bbox_label"])
    ]
    counts = Counter(label for label, ignored in objects if not ignored)
    lines[0] += f", {len(objects)} objects, {sum(counts.values())} of them not ignored"
    return [*lines, "classes: " + ", ".join(f"{name} {counts[label]}" for label, name in enumerate(classes))]


def _look_at_maps(infos: Sequence[dict], classes: Sequence[str], section: Section, limit: int) -> None:
    """Maps of classes against their images; of more than ``limit``, a regular sample."""
    findings = section.findings
    there = look_for_files("", [os.path.normpath(info["seg_map_path"]) for info in infos], findings, what="masks")
    sample = there[:: max(1, -(-len(there) // limit))]
    faults, pixels = [], np.zeros(2**16, np.int64)
    for place in sample:
        info = infos[place]
        labels = Labels(info.get("num_labels", len(classes)), bool(info.get("reduce_zero_label")))
        try:
            header = read_header(info["img_path"])
        except UnreadableImageError:
            continue  # named with the images
        try:
            seg_map = read_seg_map(info["seg_map_path"])
            fault = seg_map_fault(seg_map, (header.width, header.height), labels)
        except UnreadableImageError as error:
            fault = f"cannot be used: {error}"
        if fault:
            faults.append(f"mask {info['seg_map_path']} {fault}")
            continue
        pixels += np.bincount(seg_map.ravel(), minlength=len(pixels))
    if faults:
        findings.error(f"{len(faults)} of {len(sample)} masks that were looked at are no maps of classes: {faults[0]}")
        return
    first = int(bool(infos[0].get("reduce_zero_label")))
    if not infos[0].get("label_map"):
        section.facts[-1:] = _shares(classes, pixels[first : first + len(classes)], int(pixels.sum()), len(sample))
        unseen = [name for name, count in zip(classes, pixels[first:]) if not count]
        if unseen and len(sample) == len(there):
            findings.warn(f"{len(unseen)} of {len(classes)} classes are in no mask: {listed(unseen)}")


def _shares(classes: Sequence[str], pixels: np.ndarray, total: int, masks: int) -> list[str]:
    """Which share of the labelled pixels each class has."""
    labelled = max(int(pixels.sum()), 1)
    shares = ", ".join(f"{name} {count / labelled:.1%}" for name, count in zip(classes, pixels))
    return [f"classes: {shares}", f"{pixels.sum() / max(total, 1):.1%} of the pixels of {masks} masks have a class"]


def _has_objects(infos: Sequence[dict]) -> bool:
    return any(len(entry["bbox"]) for info in infos for entry in info["instances"])


def _look_at_places(infos: Sequence[dict], sizes: Sequence[tuple[int, int]], findings: Findings) -> None:
    """Whether objects have a size, in pixels, and their centres, or of patches any part, lie within their images.

    Args:
        infos: of images that were opened.
        sizes: width and height of each.
    """
    total, outside, flat, shares, examples = 0, 0, 0, 0, []
    for info, (width, height) in zip(infos, sizes):
        boxes = [entry["bbox"] for entry in info.get("instances", ()) if len(entry["bbox"])]
        if not boxes:
            continue
        corners = np.array(boxes, float).reshape(len(boxes), -1, 2)
        flat += int((np.ptp(corners, axis=1) == 0).any(1).sum())
        shares += int(((corners >= 0) & (corners <= 1)).all((1, 2)).sum())
        # Of objects that a patch cuts, no more than a part is inside.
        low, high = (corners.min(1), corners.max(1)) if _is_patch(info["img_path"]) else (corners.mean(1),) * 2
        wrong = int(((high < 0) | (low > (width, height))).any(1).sum())
        total, outside = total + len(boxes), outside + wrong
        examples += [os.path.basename(info["img_path"])] if wrong else []
    if shares > _MANY * total:
        findings.error(
            f"{shares} of {total} objects lie within 0 and 1", "they are shares of the image's size; pixels are needed"
        )
    elif flat:
        findings.warn(
            f"{flat} of {total} objects have no width or no height", "nothing can be found there; remove them"
        )
    if outside:
        say = findings.error if outside > _MANY * total else findings.warn
        say(f"{outside} of {total} objects have their centre outside their image: {some(examples)}",
            "are coordinates those of these images, in pixels?")  # fmt: skip


def _is_patch(path: str) -> bool:
    try:
        Patch.from_name(Path(path).stem)
    except ValueError:
        return False
    return True
