"""FreqFusion in SegNeXt, MSCAN-T, COCO-Stuff 164k, 80 000 iterations of 16 crops.

The authors ship these data settings without a model; the schedule is the one that SegNeXt uses for this data set.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.coco_stuff164k import *
    from .._base_.segmentation_runtime import *
    from .._base_.segnext_mscan_t import *

from projects.freqfusion.head import LightHamHeadFreqAware

max_iters = 80_000
model.decode_head.type = LightHamHeadFreqAware
model.decode_head.compress_ratio = 4
model.decode_head.num_classes = 171
param_scheduler[1].end = max_iters
train_cfg.max_iters = max_iters
train_cfg.val_interval = 8000
