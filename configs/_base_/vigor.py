"""VIGOR, same-area: pairs of panoramas and tiles at the published sizes, and the gallery."""

from mmengine.dataset import DefaultSampler, pseudo_collate

from perception.datasets.geolocalization import VigorPairs, VigorTiles
from perception.datasets.hard_negatives import HardNegativeBatchSampler
from perception.datasets.resumable import SeedAugmentation
from perception.datasets.view_transforms import JointFlipTurn, LoadViews, PackViews, ViewPhotometry
from perception.inference.retrieval.kind import Panoramas

data_root = "data/vigor"
ground_size, satellite_size = (384, 768), (384, 384)
load_views = dict(type=LoadViews, ground_size=ground_size, satellite_size=satellite_size)

train_pipeline = [
    dict(type=SeedAugmentation),
    load_views,
    # Holes are rarer than in Sample4Geo, since positions are learnt as well.
    dict(type=ViewPhotometry, holes_prob=0.1),
    dict(type=JointFlipTurn),
    dict(type=PackViews),
]
test_pipeline = [load_views, dict(type=PackViews)]

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=False,
    sampler=dict(type=DefaultSampler, shuffle=True),
    batch_sampler=dict(type=HardNegativeBatchSampler),
    collate_fn=dict(type=pseudo_collate),
    dataset=dict(type=VigorPairs, data_root=data_root, split="train", pipeline=train_pipeline),
)
test_loader = dict(
    batch_size=32,
    num_workers=4,
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=pseudo_collate),
)
val_dataloader = dict(
    **test_loader,
    dataset=dict(type=VigorPairs, data_root=data_root, split="test", test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
gallery = dict(
    **test_loader,
    dataset=dict(type=VigorTiles, data_root=data_root, split="test", test_mode=True, pipeline=test_pipeline),
)
# What hard negatives are mined from: the training split, as it is tested.
train_pairs = dict(
    **test_loader,
    dataset=dict(type=VigorPairs, data_root=data_root, split="train", test_mode=True, pipeline=test_pipeline),
)
train_gallery = dict(
    **test_loader,
    dataset=dict(
        type=VigorTiles, data_root=data_root, split="train", own_only=True, test_mode=True, pipeline=test_pipeline
    ),
)
folder_kind = dict(type=Panoramas, ground_size=ground_size, tile_side=satellite_size[0])
