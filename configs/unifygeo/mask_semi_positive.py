"""Variant: semi-positive tiles are no negatives."""

from mmengine.config import read_base

with read_base():
    from ..unifygeo import *

model.mask_semi_positive = True
