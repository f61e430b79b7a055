"""Pooling of enlarged regions, registered with mmrotate (the authors' ``extend_factor``)."""

from __future__ import annotations

from collections.abc import Sequence

from mmrotate.models.roi_heads.roi_extractors import RotatedSingleRoIExtractor
from mmrotate.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class ExtendedRotatedRoIExtractor(RotatedSingleRoIExtractor):
    """mmrotate's extractor on regions that are enlarged first, so that the head sees some of their surroundings.

    Unlike ``roi_scale_factor``, the enlargement also counts when a region is assigned to a level of the pyramid.

    Args:
        extend_factor: factors of (height, width); (1.4, 1.2) in the released detectors.
        **kwargs: of ``RotatedSingleRoIExtractor``.
    """

    def __init__(self, *args, extend_factor: Sequence[float] = (1.4, 1.2), **kwargs):
        super().__init__(*args, **kwargs)
        self.extend_factor = tuple(extend_factor)

    def forward(self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Features (R, C, rows, columns) of regions (R, 6) given as (image index, cx, cy, w, h, angle)."""
        return super().forward(feats, self.roi_rescale(rois, self.extend_factor), roi_scale_factor)
