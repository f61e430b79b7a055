"""A look at data in other formats than COCO's: the data set is built, and says itself what it refuses."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from mmengine.dataset import BaseDataset

from perception.datasets.class_names import listed
from perception.datasets.images import UnreadableImageError, read_header
from perception.datasets.seg_maps import Labels, check_seg_map
from perception.engine.errors import UserError

from .config import DataSet
from .files import SAMPLE, look_at_headers, look_for_files
from .report import Findings, Section


def look_at_built(dataset: DataSet, limit: int = SAMPLE) -> tuple[Section, list[str]]:
    """Everything that is wrong with one data set.

    Args:
        dataset: of any type of MMEngine.
        limit: so many images are looked into at most.

    Returns:
        The section of the report, and the paths of all images.
    """
    section = Section(f"{dataset.split} ({dataset.ann_file or ', '.join(dataset.folders)})")
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
    look_at_headers("", [paths[place] for place in there], [(0, 0)] * len(there), section.findings, limit)
    for key in sorted(infos[0].keys() - {"img_path", "seg_map_path"}):
        if key.endswith("_path") and isinstance(infos[0][key], str):
            look_for_files(
                "", list(dict.fromkeys(info[key] for info in infos)), section.findings, what=f"{key[:-5]} files"
            )
    if paths and "seg_map_path" in infos[0]:
        _look_at_maps([infos[place] for place in there], len(built.metainfo["classes"]), section.findings, limit)
    section.facts += _statistics(built, infos)
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


def _look_at_maps(infos: Sequence[dict], classes: int, findings: Findings, limit: int) -> None:
    """Maps of classes against their images; of more than ``limit``, a regular sample."""
    there = look_for_files("", [os.path.normpath(info["seg_map_path"]) for info in infos], findings, what="masks")
    sample = there[:: max(1, -(-len(there) // limit))]
    faults = []
    for place in sample:
        info = infos[place]
        labels = Labels(info.get("num_labels", classes), bool(info.get("reduce_zero_label")))
        try:
            header = read_header(info["img_path"])
        except UnreadableImageError:
            continue  # named with the images
        fault = check_seg_map(info["seg_map_path"], (header.width, header.height), labels)
        if fault:
            faults.append(fault)
    if faults:
        findings.error(f"{len(faults)} of {len(sample)} masks that were looked at are no maps of classes: {faults[0]}")
