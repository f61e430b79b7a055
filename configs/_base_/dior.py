"""DIOR, at one scale of 1200 x 800 with flips of three kinds; AP at an overlap of 0.5.

Expected layout: ``data/dior/{Annotations,JPEGImages}`` and ``data/dior/ImageSets/Main/{train,val,test}.txt``, made by
``tools/dataset_converters/prepare_dior.py`` (docs/data.md). Training and validation images are trained on.
"""

from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize
from mmengine.dataset import ConcatDataset, DefaultSampler

from perception.datasets.loading import LoadImage
from perception.datasets.resumable import SeedAugmentation
from perception.datasets.resumable_epochs import ResumableEpochAspectRatioBatchSampler
from perception.datasets.voc import VocObjects
from perception.evaluation.voc import VocObjectsMetric

classes = (
    "airplane",
    "airport",
    "baseball field",
    "basketball court",
    "bridge",
    "chimney",
    "dam",
    "expressway service area",
    "expressway toll station",
    "golf field",
    "ground track field",
    "harbor",
    "overpass",
    "ship",
    "stadium",
    "storage tank",
    "tennis court",
    "train station",
    "vehicle",
    "wind mill",
)
scale = (1200, 800)

train_pipeline = [
    dict(type=SeedAugmentation),
    dict(type=LoadImage),
    dict(type=LoadAnnotations, with_bbox=True),
    dict(type=Resize, scale=scale, keep_ratio=True),
    # A quarter of the images each way, and a quarter as they are.
    dict(type=RandomFlip, prob=0.75, direction=["horizontal", "vertical", "diagonal"]),
    dict(type=PackDetInputs),
]
test_pipeline = [
    dict(type=LoadImage),
    dict(type=Resize, scale=scale, keep_ratio=True),
    dict(type=LoadAnnotations, with_bbox=True),
    dict(type=PackDetInputs, meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_images = dict(
    type=VocObjects,
    data_root="data/dior/",
    ann_file="ImageSets/Main/train.txt",
    data_prefix=dict(sub_data_root="./"),
    metainfo=dict(classes=classes),
    filter_cfg=dict(filter_empty_gt=True, min_size=32),
    pipeline=train_pipeline,
)
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type=DefaultSampler, shuffle=True),
    batch_sampler=dict(type=ResumableEpochAspectRatioBatchSampler),
    dataset=dict(type=ConcatDataset, datasets=[train_images, dict(train_images, ann_file="ImageSets/Main/val.txt")]),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=VocObjects,
        data_root="data/dior/",
        ann_file="ImageSets/Main/test.txt",
        data_prefix=dict(sub_data_root="./"),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=VocObjectsMetric)
test_evaluator = val_evaluator
