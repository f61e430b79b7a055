"""COCO-Stuff 164k, semantic segmentation of 171 classes, read as ADE20K is.

Expected layout: ``data/coco_stuff164k/{images,annotations}/{train,val}2017/``, with the ``*_labelTrainIds.png`` that
mmsegmentation's conversion script makes.
"""

from mmengine.config import read_base

with read_base():
    from .ade20k import *

from perception.datasets.segmentation import COCOStuff164k

data_root = "data/coco_stuff164k/"
for loader, split, pipeline in (
    (train_dataloader, "train2017", train_pipeline),
    (val_dataloader, "val2017", test_pipeline),
):
    loader["dataset"] = dict(
        type=COCOStuff164k,
        data_root=data_root,
        data_prefix=dict(img_path=f"images/{split}", seg_map_path=f"annotations/{split}"),
        pipeline=pipeline,
    )
del loader, split, pipeline
test_dataloader = val_dataloader
