"""Time of a training step: Rank-DETR against mmdet's two-stage Deformable DETR with box refinement, at equal sizes.

Three models see the same images in turn: mmdet's Deformable DETR, Rank-DETR with as many queries and without the
one-to-many branch, and Rank-DETR with it. The goal: the second at most 1.05 times the first; the third costs the extra
queries on top.

    python benchmarks/rank_detr_step.py --size 320 --rounds 5
"""

import argparse
import statistics
import time

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.structures import InstanceData

from perception.engine.config import load_config


def rank_detr(one2many: int, one2one: int) -> torch.nn.Module:
    options = {
        "model.backbone.init_cfg": None,
        "model.transformer.num_queries_one2one": one2one,
        "model.transformer.num_queries_one2many": one2many,
    }
    return MODELS.build(load_config("configs/rank_detr.py", options).model)


def deformable_detr(queries: int) -> torch.nn.Module:
    """mmdet's model with Rank-DETR's widths: 2048 in the feed-forward blocks, no dropout."""
    ours = load_config("configs/rank_detr.py", {"model.backbone.init_cfg": None}).model
    layer = dict(
        self_attn_cfg=dict(embed_dims=256, num_levels=4, dropout=0.0, batch_first=True),
        ffn_cfg=dict(embed_dims=256, feedforward_channels=2048, ffn_drop=0.0),
    )
    return MODELS.build(
        Config(
            dict(
                type="DeformableDETR",
                num_queries=queries,
                num_feature_levels=4,
                with_box_refine=True,
                as_two_stage=True,
                backbone=ours.backbone.to_dict(),
                neck=ours.neck.to_dict(),
                encoder=dict(num_layers=6, layer_cfg=layer),
                decoder=dict(
                    num_layers=6,
                    return_intermediate=True,
                    post_norm_cfg=None,
                    layer_cfg=dict(
                        self_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.0, batch_first=True),
                        cross_attn_cfg=dict(embed_dims=256, num_levels=4, dropout=0.0, batch_first=True),
                        ffn_cfg=layer["ffn_cfg"],
                    ),
                ),
                positional_encoding=dict(num_feats=128, normalize=True, offset=-0.5),
                bbox_head=dict(
                    type="DeformableDETRHead",
                    num_classes=80,
                    sync_cls_avg_factor=True,
                    loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
                    loss_bbox=dict(type="L1Loss", loss_weight=5.0),
                    loss_iou=dict(type="GIoULoss", loss_weight=2.0),
                ),
                train_cfg=dict(
                    assigner=dict(
                        type="HungarianAssigner",
                        match_costs=[
                            dict(type="FocalLossCost", weight=2.0),
                            dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
                            dict(type="IoUCost", iou_mode="giou", weight=2.0),
                        ],
                    )
                ),
                test_cfg=dict(max_per_img=100),
            )
        )
    )


def inputs(batch: int, size: int, objects: int) -> tuple[torch.Tensor, list[DetDataSample]]:
    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(batch):
        corner = torch.rand(objects, 2, generator=generator) * size * 0.6
        extent = (0.05 + 0.3 * torch.rand(objects, 2, generator=generator)) * size
        shape = dict(img_shape=(size, size), ori_shape=(size, size), scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo={**shape, "batch_input_shape": (size, size)})
        labels = torch.randint(0, 80, (objects,), generator=generator)
        sample.gt_instances = InstanceData(bboxes=torch.cat([corner, corner + extent], 1), labels=labels)
        samples.append(sample)
    return torch.randn(batch, 3, size, size, generator=generator), samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=320, help="image side in pixels")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--objects", type=int, default=7, help="objects per image (COCO's mean)")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--one2many", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    register_all_modules()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    models = {
        "mmdet Deformable DETR": deformable_detr(args.queries),
        "Rank-DETR, no one-to-many branch": rank_detr(0, args.queries),
        "Rank-DETR": rank_detr(args.one2many, args.queries),
    }
    images, samples = inputs(args.batch, args.size, args.objects)
    images, samples = images.to(args.device), [sample.to(args.device) for sample in samples]
    times: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        model.to(args.device).train()
    for round_number in range(args.rounds + 1):
        for name, model in models.items():
            start = time.perf_counter()
            model.parse_losses(model.loss(images, samples))[0].backward()
            model.zero_grad(set_to_none=True)
            if args.device != "cpu":
                torch.cuda.synchronize()
            if round_number:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    baseline = statistics.median(times["mmdet Deformable DETR"])
    print(f"{args.batch} x {args.size} px, {args.device}, {args.threads} threads, median of {args.rounds} rounds")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:34s} {median:8.3f} s  {median / baseline:5.2f} x")


if __name__ == "__main__":
    main()
