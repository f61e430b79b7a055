"""iSAID instance segmentation in patches, at one scale of 1400 x 800.

Expected layout: ``data/isaid/{train,val}/images/*.png`` and
``data/isaid/{train,val}/instancesonly_filtered_{train,val}.json`` (docs/data.md). The files list their categories in
another order than this one, the order of the published models' labels. As its authors advise, images with more than
1000 objects, whose masks do not fit into memory, are not trained on.
"""

from mmengine.config import read_base

with read_base():
    from .aerial_instances import *

classes = (
    "ship",
    "storage_tank",
    "baseball_diamond",
    "tennis_court",
    "basketball_court",
    "Ground_Track_Field",
    "Bridge",
    "Large_Vehicle",
    "Small_Vehicle",
    "Helicopter",
    "Swimming_pool",
    "Roundabout",
    "Soccer_ball_field",
    "plane",
    "Harbor",
)
scale = (1400, 800)

train_pipeline[3].scale = scale
test_pipeline[1].scale = scale
train_dataloader["dataset"].update(
    dict(
        data_root="data/isaid/",
        ann_file="train/instancesonly_filtered_train.json",
        data_prefix=dict(img="train/images/"),
        metainfo=dict(classes=classes),
        filter_cfg=dict(filter_empty_gt=True, min_size=32, max_objects=1000),
        pipeline=train_pipeline,
    )
)
val_dataloader["dataset"].update(
    dict(
        data_root="data/isaid/",
        ann_file="val/instancesonly_filtered_val.json",
        data_prefix=dict(img="val/images/"),
        metainfo=dict(classes=classes),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
