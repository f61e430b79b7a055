"""Box head with shape-sensitive re-weighting, registered with mmdet (the authors' ``use_reweight=True``)."""

from __future__ import annotations

from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from perception.geometry.rotated_boxes import as_oc

from .reweighting import RATIOS, shape_sensitive_weights


@MODELS.register_module()
class ShapeSensitiveBBoxHead(Shared2FCBBoxHead):
    """mmdet's head of two shared layers, whose positive regions count by shape and offset in the box regression.

    For the detector of the reduced images. Classification is not touched.

    Args:
        ratio: ``"long_short"``, which does not depend on how angles are written, or ``"h_over_w"``: as released, for
            which boxes are brought into the frame of angles in (0, pi/2] first. That one gives negative weights to
            objects with h < w / e.
        scale: mu.
        **kwargs: of ``Shared2FCBBoxHead``.

    Raises:
        ValueError: another ratio.
    """

    def __init__(self, *args, ratio: str = "long_short", scale: float = 0.3, **kwargs):
        super().__init__(*args, **kwargs)
        if ratio not in RATIOS:
            raise ValueError(f"ratio must be one of {', '.join(RATIOS)}, not {ratio!r}")
        self.ratio, self.scale = ratio, scale

    def _get_targets_single(
        self, pos_priors: Tensor, neg_priors: Tensor, pos_gt_bboxes: Tensor, pos_gt_labels: Tensor, cfg: dict
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        labels, label_weights, targets, weights = super()._get_targets_single(
            pos_priors, neg_priors, pos_gt_bboxes, pos_gt_labels, cfg
        )
        proposals, objects = (get_box_tensor(boxes)[:, :5] for boxes in (pos_priors, pos_gt_bboxes))
        shaped = shape_sensitive_weights(proposals, as_oc(objects), self.ratio, self.scale)
        weights[: len(proposals)] *= shaped[:, None]
        return labels, label_weights, targets, weights
