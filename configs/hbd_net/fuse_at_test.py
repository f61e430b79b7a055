"""HBD-Net whose native patches are detected together with what is around them, in testing as in training.

Patches for testing need crops: ``split_pyramid.py --levels all --context-threshold 0``.
"""

from mmengine.config import read_base

with read_base():
    from ..hbd_net import *

test_pipeline = [
    dict(type=LoadImage),
    as_it_is,
    dict(type=LoadContext, transforms=[dict(type=LoadImage)]),
    dict(type=PackWithContext, meta_keys=meta_keys),
]
test_dataloader["dataset"].update(dict(context=True, pipeline=test_pipeline))
folder_kind.update(dict(fuse_at_test=True))
