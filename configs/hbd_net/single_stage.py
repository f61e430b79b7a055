"""HBD-Net of two Rotated FCOS, without fusion, on GLH-Bridge."""

from mmengine.config import read_base

with read_base():
    from ..hbd_net import *
    from .._base_.rotated_fcos_r50 import *

from projects.hbd_net.detector import HBDNetSingleStage

model.update(dict(type=HBDNetSingleStage, data_preprocessor=dict(type=ContextPreprocessor)))
