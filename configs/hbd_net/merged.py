"""HBD-Net of two detectors that were trained one after the other and do not know of each other: as it was released.

For files that ``tools/merge_stages.py`` writes, and for published ones whose detector was trained here or on boxes of
any other frame of angles than OpenCV's; see ``merged_oc.py``.
"""

from mmengine.config import read_base

with read_base():
    from ..hbd_net import *

model.fusion = None
