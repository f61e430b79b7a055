"""HBD-Net's demo as its two stages leave it, merged and without fusion; see ``hbd_net.py``."""

from mmengine.config import read_base

with read_base():
    from .hbd_net import *

model.fusion = None
test_dataloader["dataset"].update(dict(context=False, pipeline=[dict(type=LoadImage), as_it_is, pack_for_testing]))
