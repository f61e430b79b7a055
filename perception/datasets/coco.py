"""COCO's data sets with labels by name: whatever order a file lists its categories in, label k is class k.

In test mode, ``metainfo`` says where the annotations are (``ground_truth``), so that a metric evaluates with those of
the images that it is shown.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from mmdet.datasets import CocoDataset, CocoPanopticDataset
from mmdet.registry import DATASETS

from perception.engine.errors import UserError

from .class_names import listed
from .coco_file import NamedCoco, NamedCocoPanoptic


@DATASETS.register_module()
class CocoObjects(CocoDataset):
    """mmdet's data set of boxes and instance masks, whose labels follow the names in ``metainfo["classes"]``.

    A file may list its categories in any order and under any ids, and may leave out ``area`` and ``iscrowd``.
    ``filter_cfg`` may have ``max_objects``: images with more objects, whose masks would not fit into memory, are not
    trained on.

    Args:
        subset: True: objects of further categories are left out; else such a file is refused.
        absent: classes that the file need not have.
        test_mode, kwargs: as in mmdet's data set.

    Raises:
        UserError: the file is missing or in another format, or its categories and the classes differ.
    """

    index = NamedCoco

    def __init__(
        self, *args, subset: bool = False, absent: Sequence[str] = (), test_mode: bool = False, **kwargs
    ) -> None:
        self.matching = dict(subset=subset, absent=tuple(absent))
        super().__init__(*args, test_mode=test_mode, **kwargs)
        if test_mode:
            self._metainfo["ground_truth"] = dict(ann_file=self.ann_file, **self.matching)

    def load_data_list(self) -> list[dict]:
        """Images and their objects, as in mmdet's data set."""
        classes = self.metainfo["classes"]
        if isinstance(classes, str):
            raise UserError(f"metainfo.classes is the text {classes!r}, not a list of names: ({classes!r},)")
        self.COCOAPI = self.open
        return super().load_data_list()

    def open(self, path: str) -> NamedCoco:
        """The index of an annotation file."""
        return self.index(path, **self.matching)

    def filter_data(self) -> list[dict]:
        """The images that are trained on."""
        kept = super().filter_data()
        most = (self.filter_cfg or {}).get("max_objects")
        if most is None or self.test_mode:
            return kept
        return [info for info in kept if len(info["instances"]) <= most]

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """One image and its objects.

        Raises:
            UserError: numbers are missing or no numbers.
        """
        image = raw_data_info["raw_img_info"]
        try:
            return super().parse_data_info(raw_data_info)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise UserError(
                f"{self.ann_file}, image {image.get('file_name')!r} (id {image['img_id']!r}): {reason}; "
                "python tools/check_data.py CONFIG lists all that is wrong"
            ) from error


@DATASETS.register_module()
class CocoSegments(CocoObjects, CocoPanopticDataset):
    """mmdet's data set of panoptic segments with labels by name.

    Label maps have the names that the file gives them. A subset of its categories cannot be chosen, as all pixels have
    one.

    Raises:
        UserError: see :class:`CocoObjects`; or a category is a thing in one of file and ``metainfo`` and stuff in the
            other.
    """

    index = NamedCocoPanoptic

    def __init__(self, *args, absent: Sequence[str] = (), test_mode: bool = False, **kwargs) -> None:
        super().__init__(*args, absent=absent, test_mode=test_mode, **kwargs)
        if test_mode:
            self._metainfo["ground_truth"]["seg_prefix"] = self.data_prefix["seg"]

    def open(self, path: str) -> NamedCocoPanoptic:
        """The index of an annotation file, once things and stuff are the same in it and in ``metainfo``."""
        index = super().open(path)
        check_things(index.dataset["categories"], self.metainfo, path)
        return index

    def parse_data_info(self, raw_data_info: dict) -> dict:
        info = super().parse_data_info(raw_data_info)
        if info["seg_map_path"] is not None:
            info["seg_map_path"] = os.path.join(self.data_prefix["seg"], raw_data_info["raw_img_info"]["segm_file"])
        return info


def check_things(categories: Sequence[dict], metainfo: dict, path: str) -> None:
    """Compares what are things and what is stuff.

    Args:
        categories: of the file.
        metainfo: with ``classes``, ``thing_classes`` and ``stuff_classes``; labels of things come first.
        path: of the file, for the message.

    Raises:
        UserError: they differ.
    """
    classes, things = list(metainfo["classes"]), list(metainfo["thing_classes"])
    if classes != [*things, *metainfo["stuff_classes"]]:
        raise UserError("metainfo.classes must be metainfo.thing_classes followed by metainfo.stuff_classes")
    wrong = [
        entry["name"]
        for entry in categories
        if entry["name"] in classes and bool(entry.get("isthing", True)) != (entry["name"] in things)
    ]
    if wrong:
        raise UserError(
            f"{path} and metainfo.thing_classes disagree on what is a thing: {listed(wrong)}; things of the config: "
            f"{listed(things)}"
        )
