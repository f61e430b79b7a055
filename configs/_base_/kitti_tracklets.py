"""KITTI tracking, all four categories: training on scenes 0-16, evaluation on 19 and 20 (14 068 frames)."""

from mmengine.dataset import DefaultSampler, default_collate, pseudo_collate

from perception.datasets.resumable_epochs import ResumableEpochBatchSampler
from perception.datasets.tracklets.kitti import CATEGORIES, KittiTracklets
from perception.datasets.tracklets.samples import MotionSamples, SiameseSamples
from perception.datasets.tracklets.sequences import TrackletSequences

data_root = "data/kitti_tracking/training"
cache_dir = "data/cache/kitti_tracking"
tracklets = dict(type=KittiTracklets, data_root=data_root, categories=CATEGORIES, calibration="rectified")
# 0.8 times the mean side, at least 0.5 m at ten clouds a second.
area = dict(scale=1.25, margin=None, min_margin=0.5)

_loader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type=DefaultSampler, shuffle=True),
    batch_sampler=dict(type=ResumableEpochBatchSampler),
    collate_fn=dict(type=default_collate),
)
siamese_dataloader = dict(
    **_loader,
    dataset=dict(
        type=SiameseSamples,
        tracklets=dict(**tracklets, split="train"),
        cache_dir=cache_dir,
        area=area,
        candidates=4,
        template_points=512,
        search_points=1024,
        size_channels=True,
    ),
)
motion_dataloader = dict(
    **_loader,
    dataset=dict(
        type=MotionSamples,
        tracklets=dict(**tracklets, split="train"),
        cache_dir=cache_dir,
        area=area,
        candidates=4,
        points=1024,
        augment=True,
    ),
)
# Tracklets of a batch are followed side by side.
test_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=pseudo_collate),
    dataset=dict(type=TrackletSequences, tracklets=dict(**tracklets, split="test")),
)
val_dataloader = dict(**test_dataloader)
val_dataloader.update(dataset=dict(type=TrackletSequences, tracklets=dict(**tracklets, split="val")))
