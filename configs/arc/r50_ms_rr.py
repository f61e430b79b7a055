"""ARC-R50 in Oriented R-CNN, DOTA-v1.0 multi-scale with random rotation. Published: 81.77 AP50 (settings inferred)."""

from mmengine.config import read_base

with read_base():
    from ..arc import *
    from .._base_.dota_ms import *
