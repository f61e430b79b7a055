"""Pictures of segmentations, drawn while a model is tested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mmcv
from mmengine.runner import Runner
from mmseg.engine.hooks import SegVisualizationHook
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample


@HOOKS.register_module()
class SegmentationPicturesHook(SegVisualizationHook):
    """mmseg's hook with the ``test_out_dir`` that mmdet's has.

    Args:
        test_out_dir: folder for the pictures of a test run, which bear the names of the images.
        **kwargs: of mmseg's hook.
    """

    def __init__(self, test_out_dir: str | None = None, **kwargs):
        super().__init__(**kwargs)
        self.test_out_dir = test_out_dir

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[SegDataSample]
    ) -> None:
        """Draw ground truth and predictions side by side."""
        if self.test_out_dir is None:
            return super().after_test_iter(runner, batch_idx, data_batch, outputs)
        for sample in outputs:
            image = mmcv.imread(sample.img_path, channel_order="rgb")
            file = Path(self.test_out_dir) / f"{Path(sample.img_path).stem}.jpg"
            self._visualizer.add_datasample(file.stem, image, data_sample=sample, out_file=str(file))
