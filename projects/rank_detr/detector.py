"""Rank-DETR as an mmdet detector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.structures.bbox import scale_boxes
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.ops import box_convert

from .head import RankDetrHead
from .losses import RankDetrCriterion
from .matching import RankDetrMatcher, Target
from .transformer import RankDetrOutput, RankDetrTransformer

for _part in (RankDetrTransformer, RankDetrHead, RankDetrMatcher, RankDetrCriterion):
    MODELS.register_module(module=_part)


@MODELS.register_module()
class RankDETR(BaseDetector):
    """Rank-DETR (arXiv 2310.08854) on top of H-Deformable-DETR, two-stage with box refinement.

    Each of the four rank designs has its switch: ``transformer.query_rank_layer``,
    ``bbox_head.rank_adaptive_classhead``, ``criterion.giou_aware_class_loss`` and ``criterion.matcher.change_iter``
    (None: never). All off is H-Deformable-DETR.

    Args:
        backbone: config of a backbone with three outputs, strides 8, 16 and 32.
        neck: config of a neck that returns one map of ``transformer.embed_dims`` channels per level.
        transformer: config of :class:`~projects.rank_detr.transformer.RankDetrTransformer`.
        bbox_head: config of :class:`~projects.rank_detr.head.RankDetrHead`; width, depth and number of queries are the
            transformer's.
        criterion: config of :class:`~projects.rank_detr.losses.RankDetrCriterion`, that of
            :class:`~projects.rank_detr.matching.RankDetrMatcher` under ``matcher``.
        test_cfg: ``max_per_img``, detections kept per image. Default 300.
        data_preprocessor: config of mmdet's ``DetDataPreprocessor``.
        init_cfg: MMEngine initialisation.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        transformer: dict,
        bbox_head: dict,
        criterion: dict,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck)
        self.transformer = MODELS.build(transformer)
        sizes = dict(
            embed_dims=self.transformer.embed_dims,
            num_layers=len(self.transformer.decoder.layers),
            num_queries=self.transformer.num_queries_one2one + self.transformer.num_queries_one2many,
        )
        self.bbox_head = MODELS.build(bbox_head, default_args=sizes)
        matcher = MODELS.build(criterion["matcher"])
        self.criterion = MODELS.build({**criterion, "matcher": matcher})
        self.max_per_img = (test_cfg or {}).get("max_per_img", 300)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> one map (B, C, H_v, W_v) per level."""
        return self.neck(self.backbone(batch_inputs))

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Weighted loss terms, see :meth:`RankDetrCriterion.forward`."""
        return self.criterion(self._run(batch_inputs, batch_data_samples), _normalised_targets(batch_data_samples))

    @torch.no_grad()
    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Adds ``pred_instances`` (bboxes xyxy, scores, labels), best first, to every data sample.

        Args:
            batch_inputs: (B, 3, H, W).
            batch_data_samples: B samples.
            rescale: boxes in pixels of the original image instead of the network input.
        """
        output = self._run(batch_inputs, batch_data_samples)
        results = [
            self._detections(logits, boxes, sample.metainfo, rescale)
            for logits, boxes, sample in zip(output.logits[-1], output.boxes[-1], batch_data_samples)
        ]
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList | None = None) -> tuple[Tensor, Tensor]:
        """Raw logits (L, B, Q, K) and boxes (L, B, Q, 4), for tracing and counting FLOPs."""
        output = self._run(batch_inputs, batch_data_samples)
        return output.logits, output.boxes

    def _run(self, batch_inputs: Tensor, batch_data_samples: SampleList | None) -> RankDetrOutput:
        feats = self.extract_feat(batch_inputs)
        mask = padding_mask(batch_inputs, batch_data_samples)
        masks = [F.interpolate(mask[None], size=feat.shape[-2:])[0].to(torch.bool) for feat in feats]
        return self.transformer(list(feats), masks, self.bbox_head)

    def _detections(self, logits: Tensor, boxes: Tensor, meta: dict, rescale: bool) -> InstanceData:
        """The best (query, class) pairs of one image: logits (Q, K), boxes (Q, 4)."""
        num_classes = logits.shape[-1]
        scores, index = logits.float().sigmoid().flatten().topk(min(self.max_per_img, logits.numel()))
        height, width = meta["img_shape"][:2]
        xyxy = box_convert(boxes.float()[index // num_classes], "cxcywh", "xyxy")
        xyxy = xyxy * xyxy.new_tensor([width, height, width, height])
        if rescale:
            xyxy = scale_boxes(xyxy, [1 / s for s in meta["scale_factor"]])
            height, width = meta["ori_shape"][:2]
        xyxy[:, 0::2].clamp_(0, width)
        xyxy[:, 1::2].clamp_(0, height)
        results = InstanceData(bboxes=xyxy, scores=scores, labels=index % num_classes)
        return results[((xyxy[:, 2:] - xyxy[:, :2]) > 0).all(-1)]


def padding_mask(batch_inputs: Tensor, batch_data_samples: SampleList | None) -> Tensor:
    """(B, H, W) float, 1 where the batch is padding beyond an image's own size.

    The released code leaves the mask out at test time, where it runs one image per batch. With it the transformer sees
    no padding. Backbone and group norm still do, so that predictions for images of different sizes in one batch differ
    a little from those of each alone; images of one size give the same.
    """
    batch, _, height, width = batch_inputs.shape
    mask = batch_inputs.new_zeros(batch, height, width)
    for row, sample in zip(mask, batch_data_samples or []):
        image_height, image_width = sample.img_shape[:2]
        row[image_height:] = 1
        row[:, image_width:] = 1
    return mask


def _normalised_targets(batch_data_samples: SampleList) -> list[Target]:
    """Labels and boxes cx, cy, w, h relative to each un-padded image."""
    targets = []
    for sample in batch_data_samples:
        height, width = sample.img_shape[:2]
        boxes = sample.gt_instances.bboxes
        boxes = boxes if isinstance(boxes, Tensor) else boxes.tensor
        boxes = box_convert(boxes, "xyxy", "cxcywh") / boxes.new_tensor([width, height, width, height])
        targets.append(Target(labels=sample.gt_instances.labels, boxes=boxes))
    return targets
