"""DOTA-v1.0 without its test server: trains on ``train``, evaluates on the whole images of ``val``.

Expected layout: ``data/split_ss_dota/{train,val}/{images,annfiles}`` and ``data/dota/val/labelTxt``.
"""

from mmengine.config import read_base

with read_base():
    from .dota import *

from mmengine.runner import ValLoop

train_dataloader["dataset"].update(
    dict(ann_file="train/annfiles/", data_prefix=dict(img_path="train/images/")),
)
test_dataloader["dataset"].update(dict(data_prefix=dict(img_path="val/images/")))
val_dataloader = test_dataloader
test_evaluator = dict(type=DOTATask1Metric, merge_patches=True, label_folder="data/dota/val/labelTxt")
val_evaluator = test_evaluator
val_cfg = dict(type=ValLoop)
