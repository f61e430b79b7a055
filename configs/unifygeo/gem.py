"""Ablation: descriptors by a generalised mean, without attention."""

from mmengine.config import read_base

with read_base():
    from ..unifygeo import *

model.network.view.aggregator = "gem"
