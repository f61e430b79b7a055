"""Average precision of Pascal VOC, over boxes as :class:`perception.datasets.voc.VocObjects` gives them."""

from __future__ import annotations

from mmdet.evaluation import VOCMetric, eval_map
from mmdet.registry import METRICS
from mmengine.logging import MMLogger


@METRICS.register_module()
class VocObjectsMetric(VOCMetric):
    """mmdet's metric with sides of boxes as the data set has them.

    mmdet adds a pixel to every side, which is right for boxes that end at their last pixel's number (``box_ends`` of
    the data set is ``"pixel"``), and makes others too large. Difficult objects count neither way.

    Args:
        iou_thrs: overlaps from which on a detection is right.
        eval_mode: ``"area"`` below the curve of precision over recall, as VOC has it since 2010, or ``"11points"``.
        kwargs: ``collect_device`` and ``prefix``, as in mmdet's metric.
    """

    def __init__(self, iou_thrs: float | list[float] = 0.5, eval_mode: str = "area", **kwargs) -> None:
        super().__init__(iou_thrs=iou_thrs, eval_mode=eval_mode, **kwargs)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The mean over classes at each overlap (``AP50``), and the mean of these (``mAP``)."""
        truths, detections = zip(*results)
        scores = {}
        for threshold in self.iou_thrs:
            mean, _ = eval_map(
                detections,
                truths,
                iou_thr=threshold,
                dataset=self.dataset_meta["classes"],
                logger=MMLogger.get_current_instance(),
                eval_mode=self.eval_mode,
                use_legacy_coordinate=self.dataset_meta.get("box_ends") == "pixel",
            )
            scores[f"AP{round(100 * threshold):02d}"] = float(mean)
        return {"mAP": sum(scores.values()) / len(scores), **scores}
