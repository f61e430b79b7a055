"""COCO's metrics with one source of truth: the annotations of the data set that is tested, with labels by name."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric, CocoPanopticMetric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger

from perception.datasets.coco_file import NamedCoco, NamedCocoPanoptic, category_ids
from perception.datasets.masks import valid_polygons
from perception.engine.errors import UserError


@METRICS.register_module()
class CocoObjectsMetric(CocoMetric):
    """mmdet's metric of boxes and masks, which evaluates the images that it is shown with their own annotations.

    Polygons of fewer than three points, which pycocotools takes for boxes or refuses, are no part of a mask; where
    masks are evaluated, objects that have no other count neither way, as training leaves them out.

    Categories are found by name. Average precision by class (``classwise``) therefore has the right names whatever the
    order of the file; written results have the ids of the file.

    Args:
        ann_file: annotations to evaluate with; None: those of the data set, as :class:`perception.datasets.coco
            .CocoObjects` tells.
        kwargs: as in mmdet's metric.

    Raises:
        UserError: there are no annotations to evaluate with, they are of other images, or masks are to be evaluated and
            some objects have none.
    """

    def __init__(self, ann_file: str | None = None, **kwargs) -> None:
        super().__init__(ann_file=None, **kwargs)
        self.ann_file = ann_file
        self._file_ids: list = []

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Takes up the predictions of a batch."""
        self._open()
        check_images(data_samples, self._coco_api.imgs, self._source)
        super().process(data_batch, data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The figures over all images that were tested."""
        self._open()
        self.cat_ids = list(self._coco_api.cats)
        self.img_ids = sorted({prediction["img_id"] for _, prediction in results})
        say_untested(len(self._coco_api.imgs) - len(self.img_ids), self._source)
        return super().compute_metrics(results)

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict:
        """Writes files with the category ids of the annotation file, and those that the evaluation reads."""
        if self.outfile_prefix is None:
            return super().results2json(results, outfile_prefix)
        own, self.cat_ids = self.cat_ids, self._file_ids
        written = super().results2json(results, outfile_prefix)
        self.cat_ids = own
        if self.format_only:
            return written
        self._scratch = tempfile.TemporaryDirectory()
        return super().results2json(results, str(Path(self._scratch.name, "results")))

    def _open(self) -> None:
        if self._coco_api is not None:
            return
        truth = ground_truth(self.ann_file, self.dataset_meta)
        self._source = truth["ann_file"]
        classes = self.dataset_meta["classes"]
        given = NamedCoco(self._source, truth["subset"], truth["absent"])
        self._file_ids = category_ids(given.dataset, classes, self._source, truth["subset"], truth["absent"])
        if "segm" in self.metrics:
            _require_masks(given.dataset["annotations"], self._source)
            _without_broken_polygons(given.dataset, self._source)
        self._coco_api = _by_label(given.dataset, self._file_ids, classes)


@METRICS.register_module()
class CocoSegmentsMetric(CocoPanopticMetric):
    """mmdet's panoptic quality, which evaluates with the annotations of the data set that is tested, by name.

    Args:
        ann_file, seg_prefix: annotations and the folder of their label maps; None: those of the data set.
        kwargs: as in mmdet's metric.

    Raises:
        UserError: there are no annotations to evaluate with, or they are of other images.
    """

    def __init__(self, ann_file: str | None = None, seg_prefix: str | None = None, **kwargs) -> None:
        super().__init__(ann_file=None, seg_prefix=seg_prefix, **kwargs)
        self.ann_file = ann_file

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Takes up the predictions of a batch."""
        self._open()
        check_images(data_samples, self._coco_api.imgs, self._source)
        # mmdet derives the name of the label map from that of the image.
        maps = [self._coco_api.imgs[sample["img_id"]]["segm_file"] for sample in data_samples]
        super().process(data_batch, [{**sample, "img_path": file} for sample, file in zip(data_samples, maps)])

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The figures over all images that were tested."""
        self._open()
        return super().compute_metrics(results)

    def _open(self) -> None:
        if self._coco_api is not None:
            return
        truth = ground_truth(self.ann_file, self.dataset_meta)
        self._source = truth["ann_file"]
        self.seg_prefix = self.seg_prefix or truth.get("seg_prefix")
        if self.seg_prefix is None:
            raise UserError("the evaluator of panoptic segments needs seg_prefix: the folder of the label maps")
        self._coco_api = NamedCocoPanoptic(self._source, absent=truth["absent"])
        numbers = category_ids(
            self._coco_api.dataset, self.dataset_meta["classes"], self._source, absent=truth["absent"]
        )
        # By label, which is the order in which qualities by class get their names.
        names = zip(numbers, self.dataset_meta["classes"])
        things = self.dataset_meta["thing_classes"]
        self.categories = {number: dict(id=number, name=name, isthing=int(name in things)) for number, name in names}


def ground_truth(ann_file: str | None, metainfo: Mapping | None) -> dict:
    """Which annotations to evaluate with: ``ann_file``, and how its categories are matched (``subset``, ``absent``).

    Raises:
        UserError: neither evaluator nor data set name any.
    """
    known = dict((metainfo or {}).get("ground_truth") or {"subset": False, "absent": ()})
    if ann_file is not None:
        known = {**known, "ann_file": ann_file}
    if not known.get("ann_file"):
        raise UserError(
            "the evaluator has no annotations: the test data set is of a type that does not tell where its own are; "
            "use perception.datasets.coco.CocoObjects, or give the evaluator ann_file"
        )
    return known


def check_images(samples: Sequence[Mapping], images: Mapping, source: str) -> None:
    """Refuses predictions for images that the annotations do not have, or have under another name.

    Args:
        samples: tested images, with ``img_id`` and ``img_path``.
        images: entries of the annotation file by id.
        source: the annotation file, for the message.

    Raises:
        UserError: naming the first such image.
    """
    for sample in samples:
        known = images.get(sample["img_id"])
        path = sample.get("img_path")
        if known is None or (path is not None and PurePath(known["file_name"]).name != PurePath(path).name):
            there = "has no image of this id" if known is None else f"has {known['file_name']!r} under this id"
            raise UserError(
                f"the evaluator's annotations are of other images than the test data: image {path} has id "
                f"{sample['img_id']!r}, but {source} {there}; leave out ann_file of the evaluator, which then takes "
                "that of the test data set"
            )


def say_untested(number: int, source: str) -> None:
    """Logs that only a part of the annotated images was tested."""
    if number > 0:
        MMLogger.get_current_instance().info(
            f"{number} images of {source} were not tested: the figures are those of the others"
        )


def _by_label(content: dict, ids: Sequence, classes: Sequence[str]) -> COCO:
    """An index in which category k + 1 is label k."""
    labels = {number: label for label, number in enumerate(ids)}
    kept = [entry for entry in content["annotations"] if entry["category_id"] in labels]
    index = COCO()
    index.dataset = dict(
        images=content["images"],
        categories=[dict(id=label + 1, name=name) for label, name in enumerate(classes)],
        annotations=[{**entry, "category_id": labels[entry["category_id"]] + 1} for entry in kept],
    )
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools says what it does
        index.createIndex()
    index.img_ann_map, index.cat_img_map = index.imgToAnns, index.catToImgs
    return index


def _require_masks(annotations: Sequence[Mapping], source: str) -> None:
    bare = [entry for entry in annotations if not entry.get("segmentation")]
    if bare:
        raise UserError(
            f"masks are to be evaluated, but {len(bare)} of {len(annotations)} objects of {source} have no "
            f"segmentation (number {bare[0]['id']} is the first); evaluate boxes alone with metric='bbox'"
        )


def _without_broken_polygons(content: dict, source: str) -> None:
    """Takes out parts of masks that are no polygons; objects without any other become crowds, and are counted."""
    sizes = {image["id"]: [image["height"], image["width"]] for image in content["images"]}
    lost = 0
    for entry in content["annotations"]:
        if not isinstance(entry["segmentation"], list):
            continue
        valid = valid_polygons(entry["segmentation"])
        entry["segmentation"] = valid
        if not valid:
            height, width = sizes[entry["image_id"]]
            entry.update(segmentation=dict(size=[height, width], counts=[height * width]), iscrowd=1)
            lost += 1
    if lost:
        MMLogger.get_current_instance().warning(
            f"{lost} of {len(content['annotations'])} objects of {source} have no polygon of three points and are not "
            "evaluated"
        )
