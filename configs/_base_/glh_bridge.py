"""GLH-Bridge in patches of 1024 pixels that overlap by 200, evaluated on the whole images of its validation half.

Expected layout: ``data/glh_bridge_patches/{train,val}/{native,down2,...}`` as
``tools/dataset_converters/split_pyramid.py`` makes it, and ``data/glh_bridge/val/labelTxt`` (docs/data.md). These are
the settings of a detector of native images.
"""

from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize
from mmengine.dataset import DefaultSampler
from mmengine.optim import LinearLR, MultiStepLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop
from mmrotate.datasets.transforms import ConvertBoxType
from torch.optim import SGD

from perception.datasets.loading import LoadImage
from perception.datasets.resumable import SeedAugmentation
from perception.datasets.resumable_epochs import ResumableEpochBatchSampler
from projects.hbd_net.metric import PyramidLengthMetric
from projects.hbd_net.patches import GLHBridge, GLHBridgePyramid

data_root = "data/glh_bridge_patches/"

load_patch = [
    dict(type=LoadImage),
    dict(type=LoadAnnotations, with_bbox=True, box_type="qbox"),
    dict(type=ConvertBoxType, box_type_mapping=dict(gt_bboxes="rbox")),
]
flip = dict(type=RandomFlip, prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"])
train_pipeline = [dict(type=SeedAugmentation), *load_patch, flip, dict(type=PackDetInputs)]
meta_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "factor")
as_it_is = dict(type=Resize, scale_factor=1.0, keep_ratio=True)  # says so, for the heads
pack_for_testing = dict(type=PackDetInputs, meta_keys=meta_keys)
test_pipeline = [dict(type=LoadImage), as_it_is, pack_for_testing]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type=DefaultSampler, shuffle=True),
    batch_sampler=dict(type=ResumableEpochBatchSampler),
    dataset=dict(
        type=GLHBridge,
        data_root=data_root,
        ann_file="train/native/annfiles/",
        data_prefix=dict(img_path="train/native/images/"),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=GLHBridgePyramid,
        data_root=data_root,
        data_prefix=dict(img_path="val/"),
        factors=(1,),
        pipeline=test_pipeline,
    ),
)
test_evaluator = dict(type=PyramidLengthMetric, label_folder="data/glh_bridge/val/labelTxt")
val_dataloader = None
val_evaluator = None

max_epochs = 24
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=SGD, lr=0.0025, momentum=0.9, weight_decay=1e-4),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = [
    dict(type=LinearLR, by_epoch=False, begin=0, end=500, start_factor=1 / 3),
    dict(type=MultiStepLR, by_epoch=True, begin=0, end=max_epochs, milestones=[16, 22], gamma=0.1),
]
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=max_epochs)
auto_scale_lr = dict(enable=True, base_batch_size=4)
