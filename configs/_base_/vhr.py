"""NWPU VHR-10 instance segmentation, at one scale of 1200 x 800; an epoch sees each training image twice.

Expected layout: ``data/vhr/images/*.jpg`` and ``data/vhr/annotations/instances_{train,test}.json``, made by
``tools/dataset_converters/split_vhr10.py`` (docs/data.md).
"""

from mmengine.config import read_base

with read_base():
    from .aerial_instances import *

from mmengine.dataset import RepeatDataset

classes = (
    "airplane",
    "ship",
    "storage tank",
    "baseball diamond",
    "tennis court",
    "basketball court",
    "ground track field",
    "harbor",
    "bridge",
    "vehicle",
)
scale = (1200, 800)

train_pipeline[3].scale = scale
test_pipeline[1].scale = scale
train_dataloader["dataset"].update(
    dict(
        data_root="data/vhr/",
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="images/"),
        metainfo=dict(classes=classes),
        pipeline=train_pipeline,
    )
)
train_dataloader["dataset"] = dict(type=RepeatDataset, times=2, dataset=train_dataloader["dataset"])
val_dataloader["dataset"].update(
    dict(
        data_root="data/vhr/",
        ann_file="annotations/instances_test.json",
        data_prefix=dict(img="images/"),
        metainfo=dict(classes=classes),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
