"""nuScenes as BEVFormer v2 trains on it: six cameras, the lower 640 rows of their images, objects within 51.2 m.

`train_pipeline` is that of the base recipe; `augmented_pipeline` draws sizes, mirror images and motions of the ground.
"""

from mmengine.dataset import DefaultSampler, pseudo_collate

from perception.datasets.driving.rigs import NuScenesRigs
from perception.datasets.driving.transforms import (
    AugmentGround,
    CropResizeRig,
    DistortRigColours,
    DrawGridMask,
    FilterBoxes3D,
    LoadBoxes3D,
    LoadRigImages,
    NeedCameraObjects,
    PackRig,
)
from perception.datasets.resumable import SeedAugmentation
from perception.datasets.resumable_epochs import ResumableEpochBatchSampler
from perception.evaluation.nuscenes_detection import NuScenesDetectionMetric

data_root = "data/nuscenes"
pc_range = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)

filter_boxes = dict(type=FilterBoxes3D, low=pc_range[:2], high=pc_range[3:5])
crop = dict(type=CropResizeRig, size=(900, 1600), top=260, heights=(640,))
train_pipeline = [
    dict(type=SeedAugmentation),
    dict(type=LoadRigImages),
    dict(type=DistortRigColours),
    dict(type=LoadBoxes3D),
    filter_boxes,
    crop,
    dict(type=NeedCameraObjects),
    dict(type=DrawGridMask, prob=0.7),
    dict(type=PackRig),
]
augmented_pipeline = [
    dict(type=SeedAugmentation),
    dict(type=LoadRigImages),
    dict(type=DistortRigColours),
    dict(type=LoadBoxes3D),
    dict(type=AugmentGround, max_rotation=22.5, scales=(0.95, 1.05), flip_x_prob=0.5, flip_y_prob=0.5),
    filter_boxes,
    {**crop, "heights": (512, 544, 576, 608, 640, 672, 704, 736, 768), "flip_prob": 0.5},
    dict(type=NeedCameraObjects),
    dict(type=DrawGridMask, prob=0.7),
    dict(type=PackRig),
]
test_pipeline = [dict(type=LoadRigImages), crop, dict(type=PackRig)]

train_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=False,
    sampler=dict(type=DefaultSampler, shuffle=True),
    batch_sampler=dict(type=ResumableEpochBatchSampler),
    collate_fn=dict(type=pseudo_collate),
    dataset=dict(
        type=NuScenesRigs,
        data_root=data_root,
        ann_file="infos_train.msgpack",
        frame_offsets=(0,),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=False,
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=pseudo_collate),
    dataset=dict(
        type=NuScenesRigs,
        data_root=data_root,
        ann_file="infos_val.msgpack",
        frame_offsets=(0,),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=NuScenesDetectionMetric, data_root=data_root)
test_evaluator = val_evaluator
