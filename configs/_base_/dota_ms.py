"""DOTA-v1.0 in patches at scales 0.5, 1 and 1.5 that overlap by 500 ("multi-scale"), turned at random.

Expected layout: that of ``dota.py``, below ``data/split_ms_dota/``.
"""

from mmengine.config import read_base

with read_base():
    from .dota import *

from perception.datasets.oriented import RandomOrientation

data_root = "data/split_ms_dota/"
train_pipeline.insert(
    -2,
    dict(
        type=RandomOrientation,
        angles=(0, 90),
        upright_labels=(9, 11),  # storage-tank, roundabout
        upright_prob=0.5,
        min_inside=0.7,
        img_border_value=(103.53, 116.28, 123.675),  # the mean (BGR), as images are normalised later
    ),
)
train_dataloader["dataset"].update(dict(data_root=data_root, pipeline=train_pipeline))
test_dataloader["dataset"].update(dict(data_root=data_root))
