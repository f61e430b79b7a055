"""MoCUT, trained on KITTI, on the LiDAR-SOT benchmark.

``--cfg-options test_dataloader.dataset.tracklets.split=easy`` (``medium``, ``hard``) takes the tracklets of one list.
"""

from mmengine.config import read_base

with read_base():
    from .mocut_kitti import *
    from .._base_.lidar_sot import *

test_dataloader.dataset.pop("tracklets")
test_dataloader.dataset.update(tracklets=lidar_sot)
