"""Runtime settings of recipes for semantic segmentation."""

from mmengine.config import read_base

with read_base():
    from .default_runtime import *

from mmseg.visualization import SegLocalVisualizer

from perception.engine.pictures import SegmentationPicturesHook

default_scope = "mmseg"
default_hooks.visualization = dict(type=SegmentationPicturesHook)
visualizer.type = SegLocalVisualizer
