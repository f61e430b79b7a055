"""Pictures of detections, drawn while a model is tested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdet.engine.hooks import DetVisualizationHook
from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.runner import Runner

from perception.datasets.images import read_image

from .page.compared import NO_LABEL, ComparedPage, boxes_of, truth_of
from .picture_files import picture_files, tested_images


@HOOKS.register_module()
class DetectionPicturesHook(DetVisualizationHook):
    """mmdet's hook, which gave images of one name in several folders one picture and read files in its own way.

    ``test_out_dir`` is the folder for the pictures of a test run, in the folder tree and with the names of the images,
    and for a page that shows them.
    """

    def before_test(self, runner: Runner) -> None:
        """Settle the names of all pictures."""
        self._visualizer = runner.visualizer  # and not the last that was made in this process
        if self.test_out_dir is not None:
            self._files = picture_files(tested_images(runner), self.test_out_dir)
            meta = self._visualizer.dataset_meta or {}
            palette = meta.get("palette")
            palette = palette if isinstance(palette, list | tuple) else None
            self._page = ComparedPage(Path(self.test_out_dir), meta["classes"], palette)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DetDataSample]
    ) -> None:
        """Draw ground truth and predictions side by side."""
        if self.test_out_dir is None:
            return super().after_test_iter(runner, batch_idx, data_batch, outputs)
        for sample in outputs:
            file = self._files[sample.img_path]
            image = read_image(sample.img_path)
            self._visualizer.add_datasample(
                file.name, image, data_sample=sample, pred_score_thr=self.score_thr, out_file=str(file)
            )
            if "pred_panoptic_seg" in sample:
                found = sample.pred_panoptic_seg.sem_seg[0].cpu().numpy() % INSTANCE_OFFSET
                found[found >= len(self._visualizer.dataset_meta["classes"])] = NO_LABEL
                truth = sample.gt_sem_seg.sem_seg[0].cpu().numpy() if "gt_sem_seg" in sample else None
                self._page.add_maps(file, image, truth, found)
            else:
                found = boxes_of(sample.pred_instances, sample.pred_instances.scores >= self.score_thr)
                self._page.add_boxes(file, image, truth_of(sample), found)

    def after_test(self, runner: Runner) -> None:
        """Write the page."""
        if self.test_out_dir is not None:
            self._page.finish()
