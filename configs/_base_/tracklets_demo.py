"""Trackers on the built-in streets: what their demos and the controls share.

Data: ``python tools/make_demo_data.py driving --layout kitti-tracking --out data/demo/tracking --crowd 24 --num-val 4
--num-train 16 --columns 1440 --width 192 --samples 1 --rate 30``. At ten clouds a second cars go by two metres between
two of them, and the sensor turns by six degrees: beyond what so short a training learns.
"""

from mmengine.optim import CosineAnnealingLR, LinearLR

from torch.optim import Adam

from perception.datasets.tracklets.kitti import CATEGORIES, KittiTracklets

max_epochs = 3
tracklets = dict(
    type=KittiTracklets,
    data_root="data/demo/tracking/training",
    categories=CATEGORIES,
    calibration="rectified",
    min_first_points=10,
    max_gap=0,
)
splits = dict(train=tuple(range(16)), val=(17, 18, 19, 20))
training = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        tracklets=dict(**tracklets, split=splits["train"]), cache_dir="data/demo/tracking/cache", candidates=2
    ),
)
evaluation = dict(dataset=dict(tracklets=dict(**tracklets, split=splits["val"])))
dims = ((16, 16, 32), (32, 32, 64), (64, 64, 64))
# A quarter of the published points: neighbours are twice as far.
radii = (0.6, 1.0, 1.4)
siamese_points = dict(template_points=128, search_points=256)
# After so few steps scores do not tell the best of the good proposals.
siamese_tracking = dict(proposals="mean")
adam = dict(type=Adam, lr=2e-3, betas=(0.5, 0.999), eps=1e-6)
schedule = [
    dict(type=LinearLR, by_epoch=False, begin=0, end=30, start_factor=0.1),
    dict(
        type=CosineAnnealingLR,
        by_epoch=True,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        eta_min_ratio=0.02,
        convert_to_iter_based=True,
    ),
]
