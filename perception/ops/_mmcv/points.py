"""Points: neighbours, groups, voxels and membership in boxes and polygons."""

import torch
from torch import Tensor

from perception.ops import ball_query as _ball_query
from perception.ops import chamfer_distance as _chamfer_distance
from perception.ops import furthest_point_sample as _furthest_point_sample
from perception.ops import gather_points as _gather_points
from perception.ops import group_points as _group_points
from perception.ops import knn as _knn
from perception.ops import points_in_boxes as _points_in_boxes
from perception.ops import points_in_polygons as _points_in_polygons
from perception.ops import three_interpolate as _three_interpolate
from perception.ops import three_nn as _three_nn
from perception.ops import voxelization as _voxelization
from perception.ops._mmcv._common import kernel, vjp

__all__ = [
    "ball_query_forward",
    "chamfer_distance_backward",
    "chamfer_distance_forward",
    "dynamic_voxelize_forward",
    "furthest_point_sampling_forward",
    "furthest_point_sampling_with_dist_forward",
    "gather_points_backward",
    "gather_points_forward",
    "group_points_backward",
    "group_points_forward",
    "hard_voxelize_forward",
    "knn_forward",
    "points_in_boxes_all_forward",
    "points_in_boxes_cpu_forward",
    "points_in_boxes_part_forward",
    "points_in_polygons_forward",
    "three_interpolate_backward",
    "three_interpolate_forward",
    "three_nn_forward",
]


@kernel
def furthest_point_sampling_forward(
    points_tensor: Tensor, temp_tensor: Tensor, idx_tensor: Tensor, b: int, n: int, m: int
) -> None:
    idx_tensor.copy_(_furthest_point_sample.furthest_point_sample(points_tensor, m))


@kernel
def furthest_point_sampling_with_dist_forward(
    points_tensor: Tensor, temp_tensor: Tensor, idx_tensor: Tensor, b: int, n: int, m: int
) -> None:
    idx_tensor.copy_(_furthest_point_sample.furthest_point_sample_with_dist(points_tensor, m))


@kernel
def ball_query_forward(
    new_xyz_tensor: Tensor,
    xyz_tensor: Tensor,
    idx_tensor: Tensor,
    b: int,
    n: int,
    m: int,
    min_radius: float,
    max_radius: float,
    nsample: int,
) -> None:
    found = _ball_query.ball_query(xyz_tensor, new_xyz_tensor, min_radius, max_radius, nsample)
    idx_tensor.copy_(found.clamp(min=0))  # mmcv leaves zeros where no point is near


@kernel
def knn_forward(
    xyz_tensor: Tensor,
    new_xyz_tensor: Tensor,
    idx_tensor: Tensor,
    dist2_tensor: Tensor,
    b: int,
    n: int,
    m: int,
    nsample: int,
) -> None:
    distances, indices = _knn.knn(nsample, xyz_tensor, new_xyz_tensor)
    dist2_tensor.copy_(distances.clamp(max=1e10))
    idx_tensor.copy_(indices)


@kernel
def three_nn_forward(
    unknown_tensor: Tensor, known_tensor: Tensor, dist2_tensor: Tensor, idx_tensor: Tensor, b: int, n: int, m: int
) -> None:
    distances, indices = _three_nn.three_nn(unknown_tensor, known_tensor)
    dist2_tensor.copy_(distances)
    idx_tensor.copy_(indices)


@kernel
def three_interpolate_forward(
    points_tensor: Tensor,
    idx_tensor: Tensor,
    weight_tensor: Tensor,
    out_tensor: Tensor,
    b: int,
    c: int,
    m: int,
    n: int,
) -> None:
    out_tensor.copy_(_three_interpolate.three_interpolate(points_tensor, idx_tensor, weight_tensor))


@kernel
def three_interpolate_backward(
    grad_out_tensor: Tensor,
    idx_tensor: Tensor,
    weight_tensor: Tensor,
    grad_points_tensor: Tensor,
    b: int,
    c: int,
    n: int,
    m: int,
) -> None:
    def interpolate(features: Tensor) -> Tensor:
        return _three_interpolate.three_interpolate(features, idx_tensor, weight_tensor)

    grad_points_tensor.copy_(vjp(interpolate, [torch.zeros_like(grad_points_tensor)], grad_out_tensor)[0])


@kernel
def gather_points_forward(
    points_tensor: Tensor, idx_tensor: Tensor, out_tensor: Tensor, b: int, c: int, n: int, npoints: int
) -> None:
    out_tensor.copy_(_gather_points.gather_points(points_tensor, idx_tensor))


@kernel
def gather_points_backward(
    grad_out_tensor: Tensor, idx_tensor: Tensor, grad_points_tensor: Tensor, b: int, c: int, n: int, npoints: int
) -> None:
    def gather(features: Tensor) -> Tensor:
        return _gather_points.gather_points(features, idx_tensor)

    grad_points_tensor.copy_(vjp(gather, [torch.zeros_like(grad_points_tensor)], grad_out_tensor)[0])


@kernel
def group_points_forward(
    points_tensor: Tensor, idx_tensor: Tensor, out_tensor: Tensor, b: int, c: int, n: int, npoints: int, nsample: int
) -> None:
    out_tensor.copy_(_group_points.group_points(points_tensor, idx_tensor))


@kernel
def group_points_backward(
    grad_out_tensor: Tensor,
    idx_tensor: Tensor,
    grad_points_tensor: Tensor,
    b: int,
    c: int,
    n: int,
    npoints: int,
    nsample: int,
) -> None:
    def group(features: Tensor) -> Tensor:
        return _group_points.group_points(features, idx_tensor)

    grad_points_tensor.copy_(vjp(group, [torch.zeros_like(grad_points_tensor)], grad_out_tensor)[0])


@kernel
def dynamic_voxelize_forward(points: Tensor, voxel_size: Tensor, coors_range: Tensor, coors: Tensor, NDim: int) -> None:
    coors.copy_(_voxelization.voxel_coordinates(points, voxel_size, coors_range))


@kernel
def hard_voxelize_forward(
    points: Tensor,
    voxel_size: Tensor,
    coors_range: Tensor,
    voxels: Tensor,
    coors: Tensor,
    num_points_per_voxel: Tensor,
    voxel_num: Tensor,
    max_points: int,
    max_voxels: int,
    NDim: int,
    deterministic: bool,
) -> None:
    content, cells, sizes = _voxelization.hard_voxelize(points, voxel_size, coors_range, max_points, max_voxels)
    voxels[: len(content)] = content
    coors[: len(content)] = cells.to(coors.dtype)
    num_points_per_voxel[: len(content)] = sizes.to(num_points_per_voxel.dtype)
    voxel_num.fill_(len(content))


@kernel
def points_in_boxes_part_forward(boxes_tensor: Tensor, pts_tensor: Tensor, box_idx_of_points_tensor: Tensor) -> None:
    box_idx_of_points_tensor.copy_(_points_in_boxes.first_box_of_points(pts_tensor, boxes_tensor))


@kernel
def points_in_boxes_cpu_forward(boxes_tensor: Tensor, pts_tensor: Tensor, pts_indices_tensor: Tensor) -> None:
    pts_indices_tensor.copy_(_points_in_boxes.points_in_boxes(pts_tensor, boxes_tensor).T)


@kernel
def points_in_boxes_all_forward(boxes_tensor: Tensor, pts_tensor: Tensor, box_idx_of_points_tensor: Tensor) -> None:
    box_idx_of_points_tensor.copy_(_points_in_boxes.points_in_boxes(pts_tensor, boxes_tensor))


@kernel
def points_in_polygons_forward(points: Tensor, polygons: Tensor, output: Tensor) -> None:
    output.copy_(_points_in_polygons.points_in_polygons(points, polygons))


@kernel
def chamfer_distance_forward(
    xyz1: Tensor, xyz2: Tensor, dist1: Tensor, dist2: Tensor, idx1: Tensor, idx2: Tensor
) -> None:
    results = _chamfer_distance.chamfer_distance(xyz1, xyz2)
    for buffer, result in zip((dist1, dist2, idx1, idx2), results):
        buffer.copy_(result)


@kernel
def chamfer_distance_backward(
    xyz1: Tensor,
    xyz2: Tensor,
    idx1: Tensor,
    idx2: Tensor,
    graddist1: Tensor,
    graddist2: Tensor,
    gradxyz1: Tensor,
    gradxyz2: Tensor,
) -> None:
    def distances(first: Tensor, second: Tensor) -> Tensor:
        to_second = _chamfer_distance.squared_distance_to(first, second, idx1)
        to_first = _chamfer_distance.squared_distance_to(second, first, idx2)
        return torch.cat([to_second, to_first], 1)

    gradients = vjp(distances, [xyz1, xyz2], torch.cat([graddist1, graddist2], 1))
    gradxyz1.copy_(gradients[0])
    gradxyz2.copy_(gradients[1])
