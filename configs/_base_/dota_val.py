"""DOTA-v1.0 for whoever has no use for its test server: trains on ``train``, evaluates on ``val``, patch by patch.

Expected layout: ``data/split_ss_dota/{train,val}/{images,annfiles}``. Difficult objects are neither wanted nor counted
as mistakes.
"""

from mmengine.config import read_base

with read_base():
    from .dota import *

from mmengine.runner import ValLoop

train_dataloader["dataset"].update(
    dict(ann_file="train/annfiles/", data_prefix=dict(img_path="train/images/")),
)
test_dataloader["dataset"].update(
    dict(ann_file="val/annfiles/", data_prefix=dict(img_path="val/images/"), diff_thr=0, pipeline=val_pipeline)
)
val_dataloader = test_dataloader
test_evaluator = dict(type=DOTAMetric, metric="mAP")
val_evaluator = test_evaluator
val_cfg = dict(type=ValLoop)
