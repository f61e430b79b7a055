"""DOTA's metric and submission files as an MMEngine metric."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import MMLogger
from mmrotate.evaluation import DOTAMetric
from mmrotate.evaluation.functional.mean_ap import print_map_summary
from mmrotate.registry import METRICS

from perception.datasets.dota import Patch, class_numbers, read_labels
from perception.engine.errors import UserError
from perception.evaluation.rotated_ap import ClassResult, Found, Truth, evaluate, mean_average_precision
from perception.evaluation.task1 import merge_patches as merge
from perception.evaluation.task1 import suppressed, write_task1
from perception.geometry.rotated_boxes import box_corners


@METRICS.register_module()
class DOTATask1Metric(DOTAMetric):
    """What DOTA's server computes for oriented boxes, and the files that it wants.

    mmrotate's metric with these differences: scores are written in full instead of with two decimals, which makes ties;
    detections of difficult objects are no mistakes either where an image has no other objects; an overlap has to exceed
    the threshold, as in DOTA's development kit; an image's own name may hold ``__``; patches are merged *and*
    evaluated; files that are there already are replaced instead of failing after the last image; it works in
    the calling process.

    Args:
        iou_thrs: overlaps that a right detection exceeds.
        merge_patches: images are patches, named as :mod:`perception.datasets.dota_split` names them, whose detections
            become those of whole images.
        label_folder: with ``merge_patches``, the labels of the whole images (DOTA's ``labelTxt``) to evaluate with;
            objects of a difficulty above 0 are left out.
        iou_thr: of the suppression within each class of an image's merged or written detections. 0.1 is what mmrotate's
            evaluation uses; with 0.5 the released test command of ARC (``--format-only``) writes its files.
        format_only: only write files.
        outfile_prefix: folder for ``Task1_CLASS.txt`` and an archive of them; None: nothing is written.
        eval_mode: "11points" (VOC 2007, DOTA) or "area".
        collect_device, prefix: as in any metric of MMEngine.

    Raises:
        UserError: there is nothing to evaluate with, or nowhere to write to.
    """

    def __init__(
        self,
        iou_thrs: float | Sequence[float] = 0.5,
        merge_patches: bool = False,
        label_folder: str | None = None,
        iou_thr: float = 0.1,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        eval_mode: str = "11points",
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        if format_only and outfile_prefix is None:
            raise UserError("format_only of the evaluator needs outfile_prefix: the folder to write to")
        if merge_patches and not format_only and label_folder is None:
            raise UserError(
                "the evaluator merges patches: give label_folder (labels of the whole images), or format_only"
            )
        if label_folder is not None and not Path(label_folder).is_dir():
            raise UserError(f"label_folder of the evaluator, {label_folder}, is not a folder")
        super().__init__(
            iou_thrs=[iou_thrs] if isinstance(iou_thrs, float) else list(iou_thrs),
            format_only=format_only,
            outfile_prefix=outfile_prefix,
            merge_patches=merge_patches,
            iou_thr=iou_thr,
            eval_mode=eval_mode,
            collect_device=collect_device,
            prefix=prefix,
        )
        self.eval_mode = eval_mode
        self.label_folder = None if label_folder is None else Path(label_folder)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Note detections and, where they are needed, objects of a batch of images.

        Raises:
            UserError: an image has no labels, or is no patch where patches are merged.
        """
        for sample in data_samples:
            found = sample["pred_instances"]
            result = Found(*(_tensor(found[key]).numpy() for key in ("bboxes", "scores", "labels")))
            self.results.append((str(sample["img_id"]), result, self._truth_of(sample)))

    def _truth_of(self, sample: dict) -> Truth | None:
        if self.merge_patches:
            # Noticed at the first image and not after the last.
            image = _image_of(str(sample["img_id"]))
            if not self.format_only:
                self._label_file(image)
            return None
        if self.format_only:
            return None
        wanted, ignored = sample["gt_instances"], sample["ignored_instances"]
        if "bboxes" not in wanted:
            raise UserError("the data set has no boxes to evaluate with; without any set format_only of the evaluator")
        boxes = torch.cat([_tensor(part["bboxes"]) for part in (wanted, ignored)]).double()
        labels = torch.cat([_tensor(part["labels"]) for part in (wanted, ignored)])
        difficult = np.arange(len(boxes)) >= len(wanted["labels"])
        return Truth(box_corners(boxes).numpy(), labels.numpy(), difficult)

    def _label_file(self, image: str) -> Path:
        path = self.label_folder / f"{image}.txt"
        if not path.is_file():
            raise UserError(f"labels of {image} are missing: {path}")
        return path

    def compute_metrics(self, results: list[tuple[str, Found, Truth | None]]) -> dict[str, float]:
        """Merge, write and evaluate the results of all images.

        Returns:
            ``AP50`` and so on for each of ``iou_thrs``, and their mean ``mAP``; nothing with ``format_only``.

        Raises:
            UserError: there are no results, or the labels of an image cannot be read.
        """
        if not results:
            raise UserError("the evaluator got no results: its data set has no images")
        names, found, truths = zip(*results)
        if self.merge_patches:
            merged = merge(zip(names, found), self.iou_thr)
            names, found = tuple(merged), tuple(merged.values())
        if self.outfile_prefix is not None:
            final = found if self.merge_patches else [suppressed(one, self.iou_thr) for one in found]
            path = write_task1(self.outfile_prefix, dict(zip(names, final)), self.dataset_meta["classes"])
            MMLogger.get_current_instance().info(f"wrote {path}")
        if self.format_only:
            return {}
        if self.merge_patches:
            truths = [self._read_truth(name) for name in names]
        return self._evaluate(found, truths)

    def _evaluate(self, found: Sequence[Found], truths: Sequence[Truth]) -> dict[str, float]:
        classes, logger = self.dataset_meta["classes"], MMLogger.get_current_instance()
        scores = OrderedDict(mAP=0.0)
        for threshold, of_classes in zip(
            self.iou_thrs, evaluate(found, truths, len(classes), self.iou_thrs, self.eval_mode)
        ):
            score = mean_average_precision(of_classes)
            logger.info(f"overlap above {threshold}:")
            print_map_summary(score, [_as_mmrotate(result) for result in of_classes], classes, logger=logger)
            scores[f"AP{round(threshold * 100):02d}"] = score
            scores["mAP"] += score / len(self.iou_thrs)
        return scores

    def _read_truth(self, image: str) -> Truth:
        path = self._label_file(image)
        try:
            labels = read_labels(path)
            numbers = class_numbers(labels, self.dataset_meta["classes"], path)
        except ValueError as error:
            raise UserError(str(error)) from error
        return Truth(labels.corners, numbers, np.array(labels.difficulty, np.int64) > 0)


def _image_of(name: str) -> str:
    try:
        return Patch.from_name(name).image
    except ValueError as error:
        raise UserError(f"the evaluator merges patches, but {error}") from error


def _tensor(value: object) -> torch.Tensor:
    """Boxes are a tensor or one of mmdet's box structures."""
    return getattr(value, "tensor", value).detach().cpu()


def _as_mmrotate(result: ClassResult) -> dict:
    return {
        "num_gts": result.num_truths,
        "num_dets": result.num_found,
        "recall": result.recall,
        "precision": result.precision,
        "ap": result.average_precision,
    }
