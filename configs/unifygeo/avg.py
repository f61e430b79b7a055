"""Ablation: descriptors by a plain mean."""

from mmengine.config import read_base

with read_base():
    from ..unifygeo import *

model.network.view.aggregator = "avg"
