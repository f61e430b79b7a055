"""The LiDAR-SOT benchmark, on which trackers that were trained on KITTI are tried: vehicles and pedestrians."""

from perception.datasets.tracklets.lidar_sot import LidarSotTracklets

lidar_sot = dict(type=LidarSotTracklets, data_root="data/lidar_sot", split="all", categories=("vehicle", "pedestrian"))
