"""FreqFusion in SegNeXt, MSCAN-T, Cityscapes, crops of 1024 px.

The authors ship these data settings without a model; the schedule is the one that SegNeXt uses for this data set.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.cityscapes import *
    from .._base_.segmentation_runtime import *
    from .._base_.segnext_mscan_t import *

from projects.freqfusion.head import LightHamHeadFreqAware

model.data_preprocessor.size = crop_size
model.decode_head.type = LightHamHeadFreqAware
model.decode_head.compress_ratio = 4
model.decode_head.num_classes = 19
auto_scale_lr.base_batch_size = 8
