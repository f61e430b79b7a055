"""One's own data, as exports of annotation programs lay it out: where annotations and images are, and which classes."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from perception.datasets.checks.coco_facts import CocoFacts, coco_facts
from perception.datasets.class_names import listed, near_miss
from perception.datasets.dota import read_labels
from perception.datasets.folders import names_below
from perception.datasets.images import IMAGE_SUFFIXES, UnreadableImageError
from perception.datasets.seg_maps import IGNORED, read_seg_map

from .errors import UserError

SAMPLE = 200
"""So many masks are read to learn which labels there are."""


@dataclass(frozen=True)
class Place:
    """Where one split of a data set lies.

    Attributes:
        annotations: a COCO file, a folder of DOTA's label files, or one of masks.
        images: the folder that names of images are relative to.
        maps: of panoptic data, the folder of label maps.
        count: number of images.
        objects: number of objects, 0 for masks.
    """

    annotations: Path
    images: Path
    count: int
    objects: int = 0
    maps: Path | None = None


@dataclass(frozen=True)
class OwnData:
    """A data set with its classes, as a config needs them.

    Attributes:
        classes: names by label.
        places: by split.
        things: of panoptic data, the classes that are things; they come first.
        absent: classes that a split's file does not have.
        subset: some categories are left out on purpose.
        notes: what was decided, for the user to read.
    """

    classes: tuple[str, ...]
    places: dict[str, Place]
    things: tuple[str, ...] | None = None
    absent: dict[str, tuple[str, ...]] = field(default_factory=dict)
    subset: bool = False
    notes: tuple[str, ...] = ()


def coco_data(given: dict[str, Sequence[str]], classes: Sequence[str] | None, panoptic: bool = False) -> OwnData:
    """Data in COCO's format.

    Args:
        given: by split, an annotation file and a folder of images (and one of label maps), or the folder of an export.
        classes: some of its classes in the order of labels; None: all.
        panoptic: annotations are those of label maps.

    Raises:
        UserError: it is something else, or a split has classes that the training data lack.
    """
    facts, places, notes = {}, {}, []
    for split, paths in given.items():
        facts[split], places[split] = _coco_place(split, paths, panoptic)
    root = _roots(facts)
    if root:
        notes.append(f"categories without objects that stand for all others are no classes: {listed(root)}")
    every = {
        split: {name: used for name, used in zip(known.class_names, known.used) if name not in root}
        for split, known in facts.items()
    }
    chosen, subset = tuple(every["train"]), False
    if classes is not None:
        for name in classes:
            if name not in every["train"]:
                near = near_miss(name, every["train"])
                meant = f" ({near!r}?)" if near else ""
                raise UserError(
                    f"--classes: {name!r}{meant} is no category of {facts['train'].file}: {listed(every['train'])}"
                )
        chosen = tuple(classes)
        subset = any(used for counts in every.values() for name, used in counts.items() if name not in chosen)
        notes.append(
            f"classes chosen with --classes; left out: {listed(name for name in every['train'] if name not in chosen)}"
        )
    for split, counts in every.items():
        strange = [name for name, used in counts.items() if used and name not in every["train"]]
        if strange:
            raise UserError(
                f"{facts[split].file} has objects of categories that the training data ({facts['train'].file}) do not "
                f"list: {listed(strange)}; those are {listed(every['train'])}"
            )
    absent = {split: tuple(name for name in chosen if name not in known.class_names) for split, known in facts.items()}
    things = None
    if panoptic:
        kinds = {entry["name"]: bool(entry["isthing"]) for entry in facts["train"].categories}
        things = tuple(name for name in chosen if kinds[name])
        chosen = (*things, *(name for name in chosen if not kinds[name]))
    empty = [name for name in chosen if not every["train"][name]]
    if empty:
        notes.append(f"the training data have no objects of {listed(empty)}")
    return OwnData(chosen, places, things, {key: value for key, value in absent.items() if value}, subset, tuple(notes))


def dota_data(given: dict[str, Sequence[str]], classes: Sequence[str] | None) -> OwnData:
    """Data in DOTA's format.

    Args:
        given: by split, a folder of label files and one of images, or the folder that holds both.
        classes: names in the order of labels; None: those of the training labels, sorted.

    Raises:
        UserError: there are no labels or images, or labels of other classes.
    """
    places, counts = {}, {}
    for split, paths in given.items():
        labels, images = _pair(split, paths, ("annfiles", "labelTxt"))
        counts[split] = Counter()
        files = sorted(labels.glob("*.txt"))
        if not files:
            raise UserError(f"--{split}: {labels} holds no .txt files with labels")
        for file in files:
            try:
                counts[split].update(read_labels(file).classes)
            except ValueError as error:
                raise UserError(f"{error}{_yolo(file)}") from error
        places[split] = Place(labels, images, len(files), sum(counts[split].values()))
    chosen = tuple(classes or sorted(counts["train"]))
    for split, found in counts.items():
        strange = sorted(found.keys() - set(chosen))
        if strange:
            where = "--classes" if classes else "the training data"
            raise UserError(f"--{split} has objects of {listed(strange)}, which {where} do not have: {listed(chosen)}")
    return OwnData(chosen, places)


def mask_data(given: dict[str, Sequence[str]], classes: Sequence[str] | None, zero_is_unlabelled: bool) -> OwnData:
    """Images and maps of classes in two folders.

    Args:
        given: by split, a folder of masks and one of images, or the folder that holds both.
        classes: names in the order of their values; None: numbered.
        zero_is_unlabelled: the value 0 is no class.

    Raises:
        UserError: there are none, or values beyond the classes.
    """
    places, values = {}, {}
    for split, paths in given.items():
        masks, images = _pair(split, paths, ("annotations", "masks", "labels", "SegmentationClass"))
        names = [name for name in names_below(images) if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
        values[split] = _mask_values(split, masks)
        places[split] = Place(masks, images, len(names))
    found = set().union(*values.values()) - {IGNORED}
    first = 1 if zero_is_unlabelled else 0
    number = max(found, default=0) + 1 - first
    if IGNORED in values["train"] and found <= {0}:
        raise UserError(
            f"masks in {places['train'].annotations} hold only 0 and 255, and 255 is ignored: nothing would be learnt; "
            "save them with 0 and 1 (value // 255)"
        )
    if number < 1:
        raise UserError(
            f"masks in {places['train'].annotations} hold only 0, which is no class: nothing would be learnt"
        )
    if classes is None:
        names = tuple(f"class_{value}" for value in range(first, first + number))
        return OwnData(names, places, notes=("masks do not name classes: give --classes NAME ... in their order",))
    if number > len(classes):
        raise UserError(
            f"--classes names {len(classes)} classes, but masks have values up to {max(found)}"
            + ("" if zero_is_unlabelled else "; where 0 is no class, add --zero-is-unlabelled")
        )
    return OwnData(tuple(classes), places)


def _coco_place(split: str, paths: Sequence[str], panoptic: bool) -> tuple[CocoFacts, Place]:
    if len(paths) == 1 and Path(paths[0]).is_dir():
        file = _annotations_of_export(split, Path(paths[0]))
        facts = coco_facts(file)
        images = _images_of_export(split, Path(paths[0]), file, facts)
        maps = None
    elif len(paths) == 3 if panoptic else len(paths) == 2:
        facts, images = coco_facts(paths[0]), Path(paths[1])
        maps = Path(paths[2]) if panoptic else None
    else:
        wanted = "ANNOTATIONS IMAGES MAPS" if panoptic else "ANNOTATIONS IMAGES, or the folder of an export"
        raise UserError(f"--{split} wants {wanted}; got {' '.join(paths)}")
    for folder in (images, maps):
        if folder is not None and not folder.is_dir():
            raise UserError(f"--{split}: {folder} is not a folder")
    if any(facts.used) and facts.panoptic != panoptic:
        kind = "panoptic annotations; choose a recipe of panoptic segmentation" if facts.panoptic else "no label maps"
        raise UserError(f"--{split}: {facts.file} has {kind}")
    return facts, Place(Path(facts.file), images, len(facts.names), sum(facts.usable), maps)


def _annotations_of_export(split: str, folder: Path) -> Path:
    """The annotation file in the folder that an annotation program has written (Roboflow, CVAT, labelme2coco)."""
    roboflow = folder / "_annotations.coco.json"
    if roboflow.is_file():
        return roboflow
    found = sorted((folder / "annotations").glob("*.json")) or sorted(folder.glob("*.json"))
    if len(found) == 1:
        return found[0]
    if found and _is_labelme(found[0]):
        raise UserError(
            f"--{split}: {folder} holds labelme files, one an image; labelme's examples/instance_segmentation/"
            "labelme2coco.py makes one file of them"
        )
    if found:
        raise UserError(
            f"--{split}: {folder} holds several annotation files ({listed(p.name for p in found)}); name one"
        )
    text = next(iter(sorted((folder / "labels").glob("*.txt")) or sorted(folder.glob("*.txt"))), None)
    reason = _yolo(text) if text else ""
    if not reason and next(folder.glob("**/*.xml"), None):
        reason = ": it holds XML files (Pascal VOC or CVAT); export in COCO's format"
    raise UserError(f"--{split}: there is no annotation file (.json) in {folder}{reason}")


def _images_of_export(split: str, folder: Path, file: Path, facts: CocoFacts) -> Path:
    subfolders = ("images/default", f"images/{split}", "images", "JPEGImages", "data", "")
    for images in (folder / name for name in subfolders):
        if facts.names and all((images / name).is_file() for name in islice(facts.names, 5)):
            return images
    raise UserError(
        f"--{split}: the images of {file}, such as {listed(facts.names[:1])}, are not below {folder}; name their folder"
    )


def _roots(facts: dict[str, CocoFacts]) -> set[str]:
    """Categories without objects in any split that are the supercategory of others, as Roboflow writes them."""
    used = {name for known in facts.values() for name, count in zip(known.class_names, known.used) if count}
    entries = [entry for known in facts.values() for entry in known.categories]
    parents = {entry["supercategory"] for entry in entries if entry["name"] != entry["supercategory"]}
    return {entry["name"] for entry in entries} & parents - used


def _pair(split: str, paths: Sequence[str], names: Sequence[str]) -> tuple[Path, Path]:
    """Folders of labels and of images."""
    if len(paths) == 1:
        folder = Path(paths[0])
        labels = next((folder / name for name in names if (folder / name).is_dir()), None)
        if labels is None or not (folder / "images").is_dir():
            raise UserError(f"--{split}: {folder} needs the folders images/ and {' or '.join(f'{n}/' for n in names)}")
        return labels, folder / "images"
    if len(paths) != 2:
        raise UserError(f"--{split} wants LABELS IMAGES, or the folder of both; got {' '.join(paths)}")
    for path in map(Path, paths):
        if not path.is_dir():
            raise UserError(f"--{split}: {path} is not a folder")
    return Path(paths[0]), Path(paths[1])


def _mask_values(split: str, folder: Path) -> set[int]:
    names = [name for name in names_below(folder) if name.lower().endswith((".png", ".tif", ".tiff", ".bmp"))]
    if not names:
        raise UserError(f"--{split}: {folder} holds no masks (PNG, TIFF or BMP)")
    values: set[int] = set()
    for name in names[:: max(1, -(-len(names) // SAMPLE))]:
        try:
            values.update(np.unique(read_seg_map(folder / name)).tolist())
        except UnreadableImageError as error:
            raise UserError(f"mask {folder / name} cannot be used: {error}; the order is MASKS IMAGES") from error
    return values


def _is_labelme(file: Path) -> bool:
    try:
        return {"shapes", "imagePath"} <= json.loads(file.read_bytes()).keys()
    except (OSError, ValueError, AttributeError):
        return False


def _yolo(file: Path) -> str:
    """What follows a sentence about a text file that looks like YOLO's: a number and four shares a line."""
    try:
        words = file.read_text().split("\n", 1)[0].split()
        shares = [float(word) for word in words[1:5]]
    except (OSError, ValueError):
        return ""
    if len(shares) == 4 and words[0].isdecimal() and all(0 <= share <= 1 for share in shares):
        return ": they are YOLO's labels; export the data in COCO's format (Roboflow, CVAT and Label Studio do)"
    return ""
