"""Driving data: info files, data sets of camera rigs, and their transforms.

Poses are named by direction, `ego_from_lidar` for one (`perception.geometry.se3`); boxes are those of
`perception.geometry.boxes3d` in the LiDAR's frame unless a name says otherwise.
"""
