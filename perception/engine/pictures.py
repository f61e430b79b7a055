"""Pictures of segmentations, drawn while a model is tested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.runner import Runner
from mmseg.engine.hooks import SegVisualizationHook
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample

from perception.datasets.images import read_image

from .page.compared import ComparedPage
from .picture_files import picture_files, tested_images


@HOOKS.register_module()
class SegmentationPicturesHook(SegVisualizationHook):
    """mmseg's hook with the ``test_out_dir`` that mmdet's has.

    Args:
        test_out_dir: folder for the pictures of a test run, in the folder tree and with the names of the images,
            and for a page that shows them.
        **kwargs: of mmseg's hook.
    """

    def __init__(self, test_out_dir: str | None = None, **kwargs):
        super().__init__(**kwargs)
        self.test_out_dir = test_out_dir

    def before_test(self, runner: Runner) -> None:
        """Settle the names of all pictures."""
        self._visualizer = runner.visualizer  # and not the last that was made in this process
        if self.test_out_dir is not None:
            self._files = picture_files(tested_images(runner), self.test_out_dir)
            meta = self._visualizer.dataset_meta or {}
            self._page = ComparedPage(Path(self.test_out_dir), meta["classes"], meta.get("palette"))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[SegDataSample]
    ) -> None:
        """Draw ground truth and predictions side by side."""
        if self.test_out_dir is None:
            return super().after_test_iter(runner, batch_idx, data_batch, outputs)
        for sample in outputs:
            file = self._files[sample.img_path]
            image = read_image(sample.img_path)
            self._visualizer.add_datasample(file.name, image, data_sample=sample, out_file=str(file))
            truth = sample.gt_sem_seg.data[0].cpu().numpy() if "gt_sem_seg" in sample else None
            self._page.add_maps(file, image, truth, sample.pred_sem_seg.data[0].cpu().numpy())

    def after_test(self, runner: Runner) -> None:
        """Write the page."""
        if self.test_out_dir is not None:
            self._page.finish()
