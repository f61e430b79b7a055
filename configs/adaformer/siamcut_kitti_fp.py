"""SiamCUT with interpolation in the place of vector attention (the paper's ablation)."""

from mmengine.config import read_base

with read_base():
    from ..adaformer import *

model.backbone.update(attention="fp")
