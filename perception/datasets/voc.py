"""Data sets in Pascal VOC's format, with labels by name and boxes as long as their objects."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmdet.datasets import XMLDataset
from mmdet.registry import DATASETS
from mmengine.logging import MMLogger

from perception.datasets.class_names import listed, near_miss
from perception.datasets.folders import names_below, unique_stems
from perception.datasets.images import IMAGE_SUFFIXES, UnreadableImageError, read_header
from perception.datasets.voc_xml import VocImage, before_the_first, box_of, read_voc
from perception.engine.errors import UserError

BOX_ENDS = ("outer", "pixel")


@DATASETS.register_module()
class VocObjects(XMLDataset):
    """mmdet's data set of XML files, which says what it leaves out and what it cannot read.

    Args:
        base: number of the first pixel of a row: 1 in Pascal VOC, 0 in many sets of its format.
        box_ends: ``"outer"``: a box ends at the outer edge of its last pixel, so that it is as wide as its object;
            ``"pixel"``: at that pixel's number, as mmdet reads these files, for detectors that were trained so. The
            metric (:class:`perception.evaluation.voc.VocObjectsMetric`) follows.
        subset: True: objects of further classes are left out; else files with such are refused.
        kwargs: as in mmdet's data set; ``data_prefix["sub_data_root"]`` holds JPEGImages and Annotations.

    Raises:
        UserError: a file is missing or not of this format, or has other classes.
    """

    def __init__(self, *, base: int = 1, box_ends: str = "outer", subset: bool = False, **kwargs) -> None:
        if base not in (0, 1):
            raise UserError(f"base must be 0 or 1, the number of the first pixel, not {base!r}")
        if box_ends not in BOX_ENDS:
            raise UserError(f"box_ends must be one of {', '.join(BOX_ENDS)}, not {box_ends!r}")
        self.base, self.box_ends, self.subset = base, box_ends, subset
        super().__init__(**kwargs)
        self._metainfo["box_ends"] = box_ends

    def load_data_list(self) -> list[dict]:
        """Images of the list and their objects."""
        classes = self.metainfo.get("classes")
        if not classes or isinstance(classes, str):
            raise UserError(f"metainfo.classes must be a list of names, not {classes!r}")
        try:
            lines = Path(self.ann_file).read_text().splitlines()
        except OSError as error:
            raise UserError(f"list of images {self.ann_file} cannot be read: {error.strerror}") from error
        folder = os.path.join(self.sub_data_root, self.img_subdir)
        images = [name for name in names_below(folder) if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
        files = unique_stems(folder, images)
        names = dict.fromkeys(line.strip() for line in lines if line.strip())
        found = {name: read_voc(self._xml(name)) for name in names}
        self._look_at(list(found.values()), classes)
        return [
            self._info(name, os.path.join(folder, files.get(name, f"{name}.jpg")), image, list(classes))
            for name, image in found.items()
        ]

    def _xml(self, name: str) -> str:
        return os.path.join(self.sub_data_root, self.ann_subdir, f"{name}.xml")

    def _look_at(self, images: Sequence[VocImage], classes: Sequence[str]) -> None:
        """What can only be seen of all files together."""
        objects = [item for image in images for item in image.objects]
        names = Counter(item.name for item in objects)
        further = [name for name in names if name not in classes]
        if further and not self.subset:
            meant = {name: near_miss(name, classes) for name in further}
            said = listed(f"{name} ({near}?)" if near else name for name, near in meant.items())
            raise UserError(
                f"the labels of {self.ann_file} have classes that the config does not know: {said}. Classes of the "
                f"config (dataset.metainfo.classes): {listed(classes)}. Labels go by name: rename them in one of the "
                "two, or leave further classes out with dataset.subset=True"
            )
        early = before_the_first(objects, self.base)
        if early and self.base == 1:
            MMLogger.get_current_instance().warning(
                f"{early} of {len(objects)} objects of {self.ann_file} begin at pixel 0, which files that count from 1 "
                "cannot have; they begin at the image's edge now. If these files count from 0, set base=0 of the data "
                "set"
            )

    def _info(self, name: str, path: str, image: VocImage, classes: list[str]) -> dict:
        width, height = image.size or _size_of(path)
        objects = [item for item in image.objects if item.name in classes]
        instances = [
            dict(
                bbox=self._box(item.corners),
                bbox_label=classes.index(item.name),
                ignore_flag=int(item.difficult or self._is_small(item.corners)),
            )
            for item in objects
        ]
        return dict(
            img_id=name, img_path=path, xml_path=self._xml(name), width=width, height=height, instances=instances
        )

    def _is_small(self, corners: tuple[float, float, float, float]) -> bool:
        """Whether `filter_cfg` wants an object of this size ignored in training (`bbox_min_size`, in pixels)."""
        x1, y1, x2, y2 = self._box(corners)
        return not self.test_mode and min(x2 - x1, y2 - y1) < (self.bbox_min_size or 0)

    def _box(self, corners: tuple[float, float, float, float]) -> list[float]:
        x1, y1, x2, y2 = box_of(corners, self.base)
        return [x1, y1, x2, y2] if self.box_ends == "outer" else [x1, y1, x2 - 1, y2 - 1]


def _size_of(path: str) -> tuple[int, int]:
    try:
        header = read_header(path)
    except UnreadableImageError as error:
        raise UserError(f"image {path}, whose labels do not state its size, cannot be read: {error}") from error
    return header.width, header.height
