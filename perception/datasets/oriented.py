"""Transforms of images with oriented boxes: what OBBDetection's DOTA recipes do beyond mmrotate's own transforms.

Boxes are mmrotate's ``RotatedBoxes``: (cx, cy, w, h, angle) in pixels and radians, positive angles clockwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmrotate.datasets.transforms import Rotate
from mmrotate.structures.bbox import rbbox_overlaps

PER_OBJECT = ("gt_bboxes", "gt_bboxes_labels", "gt_ignore_flags", "gt_masks")


@TRANSFORMS.register_module()
class RandomOrientation(Rotate):
    """Turns an image about its centre; the size stays and what leaves it is lost.

    Objects of some classes are annotated upright whatever their orientation (a storage tank has none). An image that
    shows one, and half of the others, is turned by a multiple of 90 degrees within the range, or not at all.

    Args:
        angles: range in degrees, within [-90, 180]; positive angles turn counter-clockwise as seen on a screen.
        upright_labels: classes that are annotated upright.
        upright_prob: share of images without these that is turned like those with them.
        min_inside: objects of which no larger share of the area remains inside are dropped.
        **kwargs: of mmrotate's ``Rotate``, such as ``img_border_value``.

    Raises:
        ValueError: the range is empty or leaves [-90, 180].
    """

    def __init__(
        self,
        angles: tuple[float, float] = (0, 90),
        upright_labels: Sequence[int] = (),
        upright_prob: float = 0.5,
        min_inside: float = 0.7,
        **kwargs,
    ):
        super().__init__(rotate_angle=0, **kwargs)
        low, high = angles
        if not -90 <= low <= high <= 180:
            raise ValueError(f"angles must be a range within -90 to 180 degrees, got {angles}")
        self.angles = (low, high)
        self.upright_angles = sorted({0, *(angle for angle in (-90, 0, 90, 180) if low <= angle <= high)})
        self.upright_labels = np.array(upright_labels, dtype=np.int64)
        self.upright_prob = upright_prob
        self.min_inside = min_inside

    def transform(self, results: dict) -> dict:
        """Turns ``img`` (H, W, C) and what belongs to it by one random angle."""
        angle = self._draw(results.get("gt_bboxes_labels", np.empty(0)))
        if angle == 0:
            return results
        self.rotate_angle = -angle  # mmrotate counts clockwise
        return super().transform(results)

    def _draw(self, labels: np.ndarray) -> float:
        upright = np.random.rand() < self.upright_prob or np.isin(labels, self.upright_labels).any()  # noqa: NPY002
        draw = np.random.choice(self.upright_angles) if upright else np.random.uniform(*self.angles)  # noqa: NPY002
        return float(draw)

    def _transform_img(self, results: dict) -> None:
        # OpenCV cannot warp half precision.
        dtype = results["img"].dtype
        if dtype == np.float16:
            results["img"] = results["img"].astype(np.float32)
        super()._transform_img(results)
        results["img"] = results["img"].astype(dtype, copy=False)

    def _transform_bboxes(self, results: dict) -> None:
        height, width = results["img_shape"][:2]
        results["gt_bboxes"].rotate_((width / 2, height / 2), self.rotate_angle)

    def _filter_invalid(self, results: dict) -> None:
        if not len(results.get("gt_bboxes", ())):
            return
        height, width = results["img_shape"][:2]
        boxes = results["gt_bboxes"].convert_to("rbox").tensor.float()
        frame = boxes.new_tensor([[width / 2, height / 2, width, height, 0]])
        keep = (rbbox_overlaps(boxes, frame, mode="iof")[:, 0] > self.min_inside).numpy()
        for key in PER_OBJECT:
            if results.get(key) is not None:
                results[key] = results[key][np.flatnonzero(keep) if key == "gt_masks" else keep]


@TRANSFORMS.register_module()
class IgnoreSmallObjects(BaseTransform):
    """Marks objects as ignored whose upright hull is narrow; an image where nothing else is left is skipped.

    Args:
        min_side: objects with a hull whose shorter side has fewer pixels are ignored.
    """

    def __init__(self, min_side: float = 2):
        self.min_side = min_side

    def transform(self, results: dict) -> dict | None:
        """Changes ``gt_ignore_flags``; ``None``, upon which the data set draws another image, if all are set."""
        hulls = results["gt_bboxes"].convert_to("hbox")
        small = np.minimum(hulls.widths.numpy(), hulls.heights.numpy()) < self.min_side
        results["gt_ignore_flags"] = results["gt_ignore_flags"] | small
        return None if results["gt_ignore_flags"].all() else results
