"""SiamCUT without group regression: groups are the nearest points. Published: -6.9 / -7.0 on average."""

from mmengine.config import read_base

with read_base():
    from ..adaformer import *

model.backbone.update(deform=False)
