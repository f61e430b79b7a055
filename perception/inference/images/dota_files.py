"""Rotated boxes of a whole run in the files that DOTA's server takes: `dota/Task1_CLASS.txt`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

from perception.evaluation.task1 import task1_line, task1_name
from perception.inference.images.image_writer import Labels
from perception.inference.names import distinct_names
from perception.inference.writing import Files, Record, Records, Summary

DOTA = "dota"


class DotaFiles(Summary):
    """One file for each class, with "image score x1 y1 ... x4 y4", when there are rotated boxes.

    Args:
        names: of all images.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def wrote(self, record: Record) -> bool:
        return "detections" in record

    def finish(self, files: Files, records: Records, meta: Labels) -> None:
        self.clear(files)
        # A model yields one kind of boxes, so the first tells.
        entries = (entry for record in records() for entry in record["detections"])
        if "rbox" not in next(entries, {}):
            return
        with ExitStack() as opened:
            classes = [opened.enter_context(files.replacing(f"{DOTA}/{name}")) for name in dota_names(meta.classes)]
            images = dota_images(self._names)
            for record in records():
                for entry in record["detections"]:
                    line = task1_line(images[record["file_name"]], entry["score"], entry["segmentation"][0])
                    classes[entry["category_id"] - 1].write(line.encode(errors="surrogateescape"))

    def clear(self, files: Files) -> None:
        for path in list((files.root / DOTA).glob(task1_name("*"))):
            path.unlink()


def dota_names(classes: Sequence[str]) -> list[str]:
    """The file of each class below `dota/`."""
    return [task1_name(name) for name in distinct_names(name.replace("/", "-") for name in classes)]


def dota_images(names: Sequence[str]) -> dict[str, str]:
    """How images are called in files of `dota/`: without suffix, as far as that is clear, and without blanks."""
    stems = Counter(os.path.splitext(name)[0] for name in names)
    short = (stem if stems[stem] == 1 else name for name in names for stem in [os.path.splitext(name)[0]])
    return dict(zip(names, distinct_names("_".join(name.split()) for name in short)))
