"""Configs of small data sets in COCO's format, what the look at data says of them, and ways to spoil their files."""

import re

from mmengine.config import Config

from perception.datasets.coco import CocoObjects, CocoSegments
from perception.engine.data_check import examine
from tests.datasets.coco_sets import CLASSES


def config(train, val=None, classes=CLASSES, kind=CocoObjects, evaluator=None, heads=None, **dataset):
    """A config of two splits; `train` and `val` are annotation files beside their `images`."""

    def loader(file, **further):
        prefix = dict(img=str(file.parent / "images"), seg=str(file.parent / "maps"))
        if kind is not CocoSegments:
            del prefix["seg"]
        metainfo = dict(classes=classes)
        return dict(dataset=dict(type=kind, ann_file=str(file), data_prefix=prefix, metainfo=metainfo, **further))

    return Config(
        dict(
            model=heads if heads is not None else dict(bbox_head=dict(num_classes=len(classes))),
            train_dataloader=loader(train, filter_cfg=dict(filter_empty_gt=True), **dataset),
            val_dataloader=None if val is None else loader(val, test_mode=True),
            val_evaluator=evaluator,
        )
    )


def errors(cfg):
    report = examine(cfg, ("train", "val"))
    assert re.search(rf"\n{len(report.errors)} errors?, {len(report.warnings)} warnings?$", report.text())
    return report.errors


def warnings(cfg):
    report = examine(cfg, ("train", "val"))
    assert report.errors == []
    return report.warnings


def every(key, value):
    def change(data):
        for entry in data["annotations"]:
            entry[key] = value(entry[key]) if callable(value) else value

    return change


def first(key, value, where="annotations"):
    def change(data):
        data[where][0][key] = value

    return change


def without(key, where="images"):
    def change(data):
        for entry in data[where]:
            del entry[key]

    return change


def to_corners(data):
    for entry in data["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x + 14, y + 12, x + 14 + w, y + 12 + h]


def twice(where, number=1):
    def change(data):
        data[where][number] = {**data[where][number], "id": data[where][0]["id"]}

    return change


def add(where, **entry):
    def change(data):
        data[where].append({**data[where][0], **entry})

    return change
