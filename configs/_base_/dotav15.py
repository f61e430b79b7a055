"""DOTA-v1.5: the images of DOTA-v1.0 with 16 classes and small objects, in patches of 1024 that overlap by 200.

Expected layout: that of ``dota.py``, below ``data/split_ss_dotav15/``.
"""

from mmengine.config import read_base

with read_base():
    from .dota import *

from perception.datasets.dota_patches import DotaV15Patches

data_root = "data/split_ss_dotav15/"
train_dataloader["dataset"].update(dict(type=DotaV15Patches, data_root=data_root))
test_dataloader["dataset"].update(dict(type=DotaV15Patches, data_root=data_root))
test_evaluator.update(dict(outfile_prefix="work_dirs/dotav15_task1"))
