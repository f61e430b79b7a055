"""Annotation files in COCO's format: read whole, completed where the format leaves room, labels by name.

What other programs leave out and the format's own tools need is added: ``iscrowd`` is 0, ``area`` is that of the
segmentation, else of the box. Windows' backslashes in names of files are slashes.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from mmdet.datasets.api_wrappers import COCO, COCOPanoptic
from pycocotools import mask as rle

from perception.engine.errors import UserError

from .class_names import Difference, listed


def read_coco(path: str | Path) -> dict:
    """The content of a file: a dictionary with lists ``images``, ``annotations`` and ``categories``.

    Names of files have slashes; nothing else is looked into.

    Raises:
        UserError: it is missing, no JSON, or another format; the sentence says which.
    """
    path = Path(path)
    content = _parse(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in ("images", "categories")):
        raise UserError(f"{path} is not an annotation file of COCO's format: {_other_format(content)}")
    if not isinstance(content.setdefault("annotations", []), list):
        raise UserError(f"{path}: 'annotations' is not a list")
    for key, wanted in (("images", {"id", "file_name"}), ("annotations", {"image_id"}), ("categories", {"id", "name"})):
        _require(path, key, content[key], wanted)
    _require_simple(path, content)
    for image in content["images"]:
        if isinstance(image["file_name"], str):
            image["file_name"] = image["file_name"].replace("\\", "/")
    return content


def complete(content: dict) -> None:
    """Adds ``iscrowd`` and ``area`` where objects lack them (or have an area of 0), and numbers these from 1.

    pycocotools finds objects by ``id``, which some programs begin anew in every image, and takes 0 for unmatched.
    """
    sizes = {image["id"]: (image.get("height"), image.get("width")) for image in content["images"]}
    for number, annotation in enumerate(content["annotations"], start=1):
        annotation["id"] = number
        annotation["iscrowd"] = annotation.get("iscrowd") or 0
        if not annotation.get("area"):
            try:
                annotation["area"] = _area(annotation, sizes.get(annotation["image_id"]))
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise UserError(
                    f"annotation number {number}, of image {annotation['image_id']} has no area and neither its "
                    f"box {annotation.get('bbox')!r:.80} nor its segmentation gives one"
                ) from error


def is_panoptic(content: dict) -> bool:
    """Whether annotations are those of COCO's panoptic format, one per image."""
    return bool(content["annotations"]) and "segments_info" in content["annotations"][0]


def used_categories(content: dict) -> Counter:
    """How many objects there are of each category id."""
    if is_panoptic(content):
        entries = (segment for entry in content["annotations"] for segment in entry["segments_info"])
    else:
        entries = iter(content["annotations"])
    return Counter(entry.get("category_id") for entry in entries)


def category_ids(
    content: dict, classes: Sequence[str], path: str | Path, subset: bool = False, absent: Sequence[str] = ()
) -> list[int]:
    """The category id of each class, found by name.

    Categories without objects may be there beside the classes (some programs write a root of all classes).

    Args:
        content: of the file.
        classes: names by label.
        path: of the file, for the message.
        subset: further categories, with objects, are left out on purpose.
        absent: classes that the file need not have; their ids are numbers that it does not use.

    Raises:
        UserError: names are missing, unknown or not unique.
    """
    categories, used = content["categories"], used_categories(content)
    for key in ("id", "name"):
        twice = [value for value, count in Counter(entry[key] for entry in categories).items() if count > 1]
        if twice:
            raise UserError(f"{path} lists category {key} {listed(twice)} more than once: labels would be ambiguous")
    by_name = {entry["name"]: entry["id"] for entry in categories}
    counts = {name: used[number] for name, number in by_name.items()}
    match_categories(list(by_name), counts, classes, path, subset, absent)
    unused = iter(range(max((number for number in by_name.values() if isinstance(number, int)), default=0) + 1, 10**9))
    return [by_name[name] if name in by_name else next(unused) for name in classes]


def match_categories(
    names: Sequence[str],
    counts: Mapping[str, int],
    classes: Sequence[str],
    path: str | Path,
    subset: bool = False,
    absent: Sequence[str] = (),
) -> None:
    """Compares the names of a file's categories with the classes of a config.

    Args:
        names: of the categories, in the order of the file.
        counts: objects of each.
        classes, path, subset, absent: see :func:`category_ids`.

    Raises:
        UserError: they differ; with both lists and what was probably meant.
    """
    if len(set(classes)) < len(classes):
        raise UserError(f"metainfo.classes names a class more than once: {listed(classes)}")
    unknown = sorted(set(absent) - set(classes))
    if unknown:
        raise UserError(f"'absent' of the data set names {listed(unknown)}, not among its classes: {listed(classes)}")
    further = [name for name in names if name not in classes and counts[name] and not subset]
    required = [name for name in classes if name not in absent or name in names]
    difference = Difference.between(required, [*(name for name in names if name in classes), *further])
    if difference:
        raise UserError(_mismatch(path, difference, classes, names))


class NamedCoco(COCO):
    """The format's own index of a file whose category ids come in the order of the names asked for.

    Args:
        annotation_file: a file that :func:`read_coco` reads.
        subset, absent: see :func:`category_ids`.

    Raises:
        UserError: see :func:`read_coco`; or it is a panoptic file.
    """

    panoptic = False

    def __init__(self, annotation_file: str | Path, subset: bool = False, absent: Sequence[str] = ()) -> None:
        super().__init__()
        self.file, self.subset, self.absent = annotation_file, subset, absent
        self.dataset = read_coco(annotation_file)
        if self.dataset["annotations"] and is_panoptic(self.dataset) != self.panoptic:
            raise UserError(
                f"{annotation_file} holds {_KINDS[not self.panoptic]}; here {_KINDS[self.panoptic]} are needed"
            )
        self.complete()
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools says what it does
            self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs

    def complete(self) -> None:
        """Adds what the file leaves out."""
        complete(self.dataset)

    def get_cat_ids(self, cat_names: Sequence[str] = (), **kwargs) -> list[int]:
        """Ids of the categories of these names, in their order."""
        if not cat_names or kwargs:
            return super().get_cat_ids(cat_names=list(cat_names), **kwargs)
        return category_ids(self.dataset, cat_names, self.file, self.subset, self.absent)


class NamedCocoPanoptic(NamedCoco, COCOPanoptic):
    """The same of panoptic annotations, whose label maps keep the names that the file gives them."""

    panoptic = True

    def complete(self) -> None:
        for entry in self.dataset["annotations"]:
            for segment in entry["segments_info"]:
                segment.setdefault("iscrowd", 0)

    def createIndex(self) -> None:
        super().createIndex()
        for entry in self.dataset["annotations"]:
            if entry.get("file_name") and entry["image_id"] in self.imgs:
                self.imgs[entry["image_id"]]["segm_file"] = entry["file_name"].replace("\\", "/")


_KINDS = {False: "annotations of objects (boxes)", True: "panoptic annotations (segments_info)"}


def _parse(path: Path) -> object:
    try:
        data = path.read_bytes()
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder; an annotation file (.json) is needed") from error
    except OSError as error:
        raise UserError(f"annotation file {path} cannot be read: {error.strerror}") from error
    if not data.strip():
        raise UserError(f"annotation file {path} is empty ({len(data)} bytes)")
    try:
        # Four times as fast; what it does not understand (NaN, a byte order mark) the standard parser may.
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _parse_slowly(path, data)


def _parse_slowly(path: Path, data: bytes) -> object:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"annotation file {path} is not UTF-8 text (byte {error.start}): {_kind(data)}") from error
    except json.JSONDecodeError as error:
        end = len(error.doc.rstrip())
        reason = (
            "it ends in the middle, so it is truncated"
            if error.pos >= end - 1 or "Unterminated" in error.msg
            else "it goes on after its end, as labels in YOLO's format and files of one object a line do"
            if error.msg == "Extra data"
            else error.msg
        )
        raise UserError(
            f"annotation file {path} is not whole JSON: {reason} (line {error.lineno}, column {error.colno})"
            + (f"; {_kind(data)}" if error.pos == 0 else "")
        ) from error


def _kind(data: bytes) -> str:
    if data[:2] == b"\x1f\x8b":
        return "it is compressed with gzip"
    if data[:4] == b"PK\x03\x04":
        return "it is a zip archive"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "it is UTF-16; save it as UTF-8"
    if data.lstrip()[:1] == b"<":
        return "it is XML (Pascal VOC or CVAT); export it in COCO's format"
    return "it is something else"


def _other_format(content: object) -> str:
    """What a parsed JSON file is, if not COCO's."""
    if isinstance(content, list):
        detections = content and isinstance(content[0], dict) and {"image_id", "score"} <= content[0].keys()
        if detections:
            return "it is a list of detections, as detectors write them"
        return f"it is a list of {len(content)} entries, not an object with 'images', 'annotations' and 'categories'"
    if not isinstance(content, dict):
        return f"it holds one {type(content).__name__}"
    if {"shapes", "imagePath"} <= content.keys():
        return (
            "it is one image's labelme file; labelme's examples/instance_segmentation/labelme2coco.py makes one file "
            "of a folder of them"
        )
    if "_via_img_metadata" in content:
        return "it is a project of the VGG Image Annotator; export it in COCO's format"
    if content and all(isinstance(value, dict) and "regions" in value for value in content.values()):
        return "it is an export of the VGG Image Annotator; export it in COCO's format"
    if {"type", "features"} <= content.keys():
        return "it is GeoJSON"
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    return f"it has no list {listed(missing)}; its entries are {listed(content)}"


def _require(path: Path, key: str, entries: list, wanted: set[str]) -> None:
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not wanted <= entry.keys():
            lacks = listed(sorted(wanted - entry.keys())) if isinstance(entry, dict) else "everything"
            count = sum(not isinstance(other, dict) or not wanted <= other.keys() for other in entries)
            raise UserError(
                f"{path}: {count} of {len(entries)} {key} lack {lacks}; the first is number {number}: {entry!r:.100}"
            )


def _require_simple(path: Path, content: dict) -> None:
    """Lists and objects where one id or name belongs."""
    for key, field in (("annotations", "category_id"), ("categories", "id"), ("categories", "name")):
        if not {list, dict}.isdisjoint({type(entry.get(field)) for entry in content[key]}):
            first = next(entry for entry in content[key] if isinstance(entry.get(field), (list, dict)))
            raise UserError(f"{path}: {field} has to be one value; the first of {key} that has others: {first!r:.100}")


def _mismatch(path: str | Path, difference: Difference, classes: Sequence[str], names: Sequence[str]) -> str:
    others = [name for name in names if name not in classes]
    remedies = ["rename them in one of the two"]
    if difference.further:
        remedies.append("leave its further categories out with dataset.subset=True")
    if difference.missing:
        remedies.append(f"say which classes it need not have with dataset.absent=[{difference.missing[0]!r}, ...]")
    return (
        f"{path} and the config name different classes: {difference.text(others)}. Classes of the config "
        f"(dataset.metainfo.classes): {listed(classes)}. Categories of the file: {listed(names)}. "
        f"Labels go by name: {', or '.join(remedies)}; tools/make_config.py writes a config for the file's categories"
    )


def _area(annotation: dict, size: tuple | None) -> float:
    """Pixels of the segmentation if there is one, else of the box."""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        listed_counts = isinstance(segmentation["counts"], list)
        return float(rle.area(rle.frPyObjects(segmentation, *size) if listed_counts else segmentation))
    polygons = [polygon for polygon in segmentation or () if len(polygon) >= 6]
    if polygons:
        return float(rle.area(rle.merge(rle.frPyObjects(polygons, *size))))
    _, _, width, height = annotation["bbox"]
    return width * height
