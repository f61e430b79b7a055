"""BEVFormer v2, eight frames over three and a half seconds, 48 epochs. No figures were published."""

from mmengine.config import read_base

with read_base():
    from .t8_24e import *
    from ._schedule_48e import *
