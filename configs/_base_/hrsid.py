"""HRSID: ships in radar images with instance masks, at one scale of 1200 x 1000; an epoch sees each image twice.

Expected layout: ``data/hrsid/images/*.jpg`` and ``data/hrsid/annotations/{train,test}2017.json``.
"""

from mmengine.config import read_base

with read_base():
    from .aerial_instances import *

from mmengine.dataset import RepeatDataset

classes = ("ship",)
scale = (1200, 1000)

train_pipeline[3].scale = scale
test_pipeline[1].scale = scale
train_dataloader["dataset"].update(
    dict(
        data_root="data/hrsid/",
        ann_file="annotations/train2017.json",
        data_prefix=dict(img="images/"),
        metainfo=dict(classes=classes),
        pipeline=train_pipeline,
    )
)
train_dataloader["dataset"] = dict(type=RepeatDataset, times=2, dataset=train_dataloader["dataset"])
val_dataloader["dataset"].update(
    dict(
        data_root="data/hrsid/",
        ann_file="annotations/test2017.json",
        data_prefix=dict(img="images/"),
        metainfo=dict(classes=classes),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
