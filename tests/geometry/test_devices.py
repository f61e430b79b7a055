"""Nothing is made on another device than its inputs are on: seen without a GPU, on tensors that only have a device."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from perception.geometry import boxes3d, cameras, points, se3
from perception.geometry.bev import BevGrid, warp

GRID = BevGrid((-8, -8), (8, 8), 8, 8)

CALLS = {
    "slerp": lambda some: se3.slerp(some(5, 4), some(5, 4), 0.3),
    "interpolate": lambda some: se3.interpolate(some(5, 4, 4), some(5, 4, 4), 0.2),
    "invert": lambda some: se3.invert(some(5, 4, 4)),
    "image_matrix": lambda some: cameras.image_matrix(some(5, 3, 3), some(5, 4, 4)),
    "project": lambda some: cameras.project(some(5, 7, 3), some(5, 4, 4)),
    "unproject": lambda some: cameras.unproject(some(5, 7, 2), some(5, 7), some(5, 3, 3)),
    "crop_and_resize": lambda some: cameras.crop_and_resize(some(5, 3, 3), (0, 2), (0.5, 0.5)),
    "switch_axes": lambda some: cameras.switch_axes(some(5, 4, 4)),
    "cut_at_near": lambda some: cameras.cut_at_near(some(5, 12, 2, 3)),
    "corners": lambda some: boxes3d.corners(some(5, 9)),
    "points_inside": lambda some: boxes3d.points_inside(some(50, 3), some(5, 9)),
    "paired_iou_3d": lambda some: boxes3d.paired_iou_3d(some(5, 9), some(5, 9)),
    "transform": lambda some: boxes3d.transform(some(5, 9), some(4, 4)),
    "rotate": lambda some: boxes3d.rotate(some(5, 9), 0.3),
    "flip_x": lambda some: boxes3d.flip_x(some(5, 9)),
    "to_legacy": lambda some: boxes3d.to_legacy(some(5, 9)),
    "to_kitti": lambda some: boxes3d.to_kitti(some(5, 9), some(4, 4)),
    "cells": lambda some: GRID.cells(some(50, 3)),
    "warp": lambda some: warp(some(2, 3, 8, 8), torch.empty(2, 3, 3), GRID),  # a matrix may come from the CPU
    "box_cloud": lambda some: points.box_cloud(some(50, 3), some(7)),
    "move_with_box": lambda some: points.move_with_box(some(50, 3), some(7), some(4)),
}


@pytest.mark.parametrize("name", CALLS)
def test_results_are_where_inputs_are(name):
    with FakeTensorMode():
        result = CALLS[name](lambda *shape: torch.empty(*shape, device="cuda"))
    for tensor in result if isinstance(result, tuple) else [result]:
        assert tensor.device.type == "cuda"
