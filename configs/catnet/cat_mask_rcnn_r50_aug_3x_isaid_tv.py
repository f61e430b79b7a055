"""CAT Mask R-CNN, ResNet-50, iSAID, 36 epochs, images of five scales, training and validation images together.

Testing writes ``work_dirs/isaid_test.*.json``, the files that iSAID's server evaluates; the test images are listed in
``data/isaid/test/instancesonly_filtered_test.json``.
"""

from mmengine.config import read_base

with read_base():
    from .cat_mask_rcnn_r50_aug_3x_isaid import *

from mmengine.dataset import ConcatDataset

train_dataloader["dataset"] = dict(
    type=ConcatDataset,
    datasets=[
        train_dataloader["dataset"],
        dict(
            train_dataloader["dataset"],
            ann_file="val/instancesonly_filtered_val.json",
            data_prefix=dict(img="val/images/"),
        ),
    ],
)
test_dataloader["dataset"].update(
    dict(ann_file="test/instancesonly_filtered_test.json", data_prefix=dict(img="test/images/"))
)
test_evaluator.update(dict(format_only=True, outfile_prefix="work_dirs/isaid_test"))
val_dataloader = None
val_evaluator = None
val_cfg = None
