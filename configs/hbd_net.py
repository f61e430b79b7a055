"""HBD-Net with ResNet-50s on GLH-Bridge: both branches and their fusion together, 24 epochs, 2 images at a time.

The released recipe never gets that far (projects/hbd_net/README.md). Single-scale Oriented R-CNN beside it:
``configs/glh_bridge/oriented_rcnn.py``.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.dota_runtime import *
    from ._base_.glh_bridge import *
    from ._base_.hbd_rcnn_r50 import *

from perception.inference.images.pyramid_kind import PyramidImages
from projects.hbd_net.context import (
    ContextPreprocessor,
    DropShortObjects,
    LoadContext,
    PackWithContext,
    RandomFlipWithContext,
)
from projects.hbd_net.detector import HBDNet
from projects.hbd_net.head import ShapeSensitiveBBoxHead
from projects.hbd_net.patches import GLHBridgeWithContext

model.update(
    dict(
        type=HBDNet,
        data_preprocessor=dict(type=ContextPreprocessor),
        global_roi_head={
            **model["roi_head"],
            "bbox_head": {**model["roi_head"]["bbox_head"], "type": ShapeSensitiveBBoxHead, "ratio": "long_short"},
        },
        fusion=dict(channels=256, most=5),
    )
)

train_pipeline = [
    dict(type=SeedAugmentation),
    *load_patch,
    dict(type=LoadContext, transforms=[*load_patch, dict(type=DropShortObjects, min_length=15)]),
    {**flip, "type": RandomFlipWithContext},
    dict(type=PackWithContext),
]
train_dataloader.update(dict(batch_size=2))
train_dataloader["dataset"].update(
    dict(
        type=GLHBridgeWithContext,
        data_prefix=dict(context="train/native/contexts/"),
        context_threshold=300,
        pipeline=train_pipeline,
    )
)
test_dataloader["dataset"].update(dict(factors=None))
folder_kind = dict(type=PyramidImages, patch=1024, gap=200)
# Without context in a batch, the second branch has no part in its loss.
find_unused_parameters = True
