"""Inputs for every operator with a native kernel, in sizes that a test chooses."""

import math
import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from perception.ops.alphas_to_weights import alphas_to_weights
from perception.ops.ball_query import ball_query
from perception.ops.box_iou_rotated import box_iou_rotated
from perception.ops.carafe import carafe
from perception.ops.furthest_point_sample import furthest_point_sample
from perception.ops.hash_grid import hash_grid, hash_grid_layout
from perception.ops.knn import knn
from perception.ops.masked_adam import masked_adam_
from perception.ops.masked_rmsprop import masked_rmsprop_
from perception.ops.ms_deform_attn import multi_scale_deformable_attention
from perception.ops.nms_rotated import nms_rotated
from perception.ops.roi_align_rotated import roi_align_rotated
from perception.ops.sample_rays import sample_rays
from perception.ops.three_nn import three_nn
from perception.ops.total_variation import total_variation_add_grad_
from perception.ops.trilinear import VoxelCorners, trilinear_gather, trilinear_scatter

KINDS = ("empty", "single", "odd", "large")


class Sizes:
    """Sizes of a kind: the least, 1, something odd, the largest, or (a number) random; and numbers on a device."""

    def __init__(self, kind: str | int, device: str = "cpu"):
        self.kind, self.device = kind, device
        self.random = random.Random(kind)
        self.generator = torch.Generator().manual_seed(kind if isinstance(kind, int) else 0)

    def number(self, low: int, high: int) -> int:
        """At least ``low``, at most ``high``."""
        if isinstance(self.kind, int):
            return self.random.randint(low, high)
        return {"empty": low, "single": max(low, 1), "odd": max(low, high // 3 | 1), "large": high}[self.kind]

    def option(self, *values):
        """One of several."""
        return self.random.choice(values) if isinstance(self.kind, int) else values[0]

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0, dtype=torch.float64) -> Tensor:
        numbers = torch.rand(shape, generator=self.generator, dtype=torch.float64) * (high - low) + low
        return numbers.to(self.device, dtype)

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.generator).to(self.device)

    def tensor(self, *values: float, dtype=torch.float64) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=self.device)


class Case(NamedTuple):
    """``function(*inputs)`` returns a tensor or several; the first ``differentiable`` inputs have gradients."""

    function: Callable
    inputs: tuple[Tensor, ...]
    differentiable: int


def boxes(sizes, count, dtype):
    result = sizes.uniform(count, 5, dtype=torch.float64)
    result = result * sizes.tensor(60, 60, 30, 20, 6) + sizes.tensor(0, 0, 0.5, 0.5, -3)
    if count > 4:
        result[1] = result[0]  # identical
        result[2, 2:] = result[0, 2:] * sizes.tensor(0.5, 0.5, 1)  # nested
        result[2, :2] = result[0, :2]
        result[3, 3] = 0.0  # no area
        result[4, 2] = 1e-3  # thin
    return result.to(dtype)


def iou_case(sizes, dtype):
    first, second = boxes(sizes, sizes.number(0, 70), dtype), boxes(sizes, sizes.number(0, 50), dtype)
    options = dict(mode=sizes.option("iou", "iof"), clockwise=sizes.option(True, False))
    return Case(lambda a, b: box_iou_rotated(a, b, **options), (first, second), 0)


def aligned_iou_case(sizes, dtype):
    count = sizes.number(0, 300)
    first, second = boxes(sizes, count, dtype), boxes(sizes, count, dtype)
    return Case(lambda a, b: box_iou_rotated(a, b, "iof", aligned=True), (first, second), 0)


def nms_case(sizes, dtype):
    count = sizes.number(0, 220)
    labels = sizes.integers(3, count)
    options = dict(labels=sizes.option(None, labels), clockwise=sizes.option(True, False))
    scores = sizes.uniform(count, dtype=dtype)
    return Case(lambda b, s: nms_rotated(b, s, 0.3, **options), (boxes(sizes, count, dtype), scores), 0)


def roi_align_rotated_case(sizes, dtype):
    batch, channels = sizes.number(1, 2), sizes.number(1, 19)
    height, width = sizes.number(1, 15), sizes.number(1, 13)
    count = sizes.number(0, 12)
    rois = torch.cat([sizes.integers(batch, count, 1).double(), boxes(sizes, count, torch.float64)], 1)
    rois[:, 1:5] *= 0.5
    if count > 1:
        rois[1, 1:3] = -40.0  # wholly outside
    options = dict(
        spatial_scale=0.5,
        sampling_ratio=sizes.option(0, 2),
        aligned=sizes.option(True, False),
        clockwise=sizes.option(False, True),
    )
    bins = (sizes.number(1, 4), sizes.number(1, 5))
    features = sizes.uniform(batch, channels, height, width, low=-1, dtype=dtype)
    return Case(lambda f, r: roi_align_rotated(f, r, bins, **options), (features, rois.to(dtype)), 1)


def carafe_case(sizes, dtype):
    batch, groups = sizes.number(0, 2), sizes.option(2, 1, 3)
    channels, kernel, scale = groups * sizes.number(1, 11), sizes.option(3, 1, 5), sizes.option(2, 1, 3)
    height, width = sizes.number(1, 9), sizes.number(1, 11)
    features = sizes.uniform(batch, channels, height, width, low=-1, dtype=dtype)
    masks = sizes.uniform(batch, groups * kernel**2, height * scale, width * scale, low=-1, dtype=dtype)
    return Case(lambda f, m: carafe(f, m, kernel, groups, scale), (features, masks), 2)


def ms_deform_attn_case(sizes, dtype):
    batch, queries, heads, dim = sizes.number(0, 2), sizes.number(0, 15), sizes.number(1, 3), sizes.number(1, 37)
    shapes = [(sizes.number(1, 9), sizes.number(1, 8)), (sizes.number(1, 4), sizes.number(1, 5))]
    points = sizes.number(1, 3)
    length = sum(height * width for height, width in shapes)
    value = sizes.uniform(batch, length, heads, dim, low=-1, dtype=dtype)
    locations = sizes.uniform(batch, queries, heads, 2, points, 2, low=-0.2, high=1.2, dtype=dtype)
    weights = sizes.uniform(batch, queries, heads, 2, points, dtype=dtype)
    return Case(lambda v, p, w: multi_scale_deformable_attention(v, shapes, p, w), (value, locations, weights), 3)


def cloud_pair(sizes, dtype):
    batch = sizes.number(0, 2)
    points = sizes.uniform(batch, sizes.number(1, 180), 3, low=-1, dtype=dtype)
    return points, sizes.uniform(batch, sizes.number(0, 30), 3, low=-1, dtype=dtype)


def furthest_case(sizes, dtype):
    points, _ = cloud_pair(sizes, dtype)
    if points.shape[1] > 3:
        points[:, 1] = points[:, 0].clone()
        points[:, 2] = 0.01
    number, skip = sizes.number(0, 9), sizes.option(True, False)
    return Case(lambda p: furthest_point_sample(p, number, skip), (points,), 0)


def ball_case(sizes, dtype):
    points, centres = cloud_pair(sizes, dtype)
    low, number = sizes.option(0.1, 0.0), sizes.number(0, 20)
    if centres.shape[1] > 1:
        centres[:, 1] = 50.0  # nothing near
    return Case(lambda p, c: ball_query(p, c, low, 0.6, number), (points, centres), 0)


def knn_case(sizes, dtype):
    k = sizes.number(0, 12)
    return Case(lambda p, c: knn(k, p, c), cloud_pair(sizes, dtype), 0)


def three_nn_case(sizes, dtype):
    points, centres = cloud_pair(sizes, dtype)
    points[:, ::2] = points[:, :1].clone()  # ties
    return Case(lambda p, c: three_nn(c, p), (points, centres), 0)


def voxels(sizes, dtype):
    shape = (sizes.number(1, 5), sizes.number(1, 4), sizes.number(1, 6))
    count = sizes.number(0, 130)
    position = sizes.uniform(count, 3, low=-1.5, high=1.5) * sizes.tensor(*shape)
    if count > 3:
        position[1], position[2, 0], position[3] = 1e9, math.nan, -1e9
    return shape, position.to(dtype)


def gather_case(sizes, dtype):
    shape, position = voxels(sizes, dtype)
    table = sizes.uniform(math.prod(shape), sizes.number(1, 13), low=-1, dtype=dtype)
    return Case(lambda t, p: trilinear_gather(t, VoxelCorners(p, shape)), (table, position), 1)


def scatter_case(sizes, dtype):
    shape, position = voxels(sizes, dtype)
    values = sizes.uniform(len(position), sizes.number(1, 13), low=-1, dtype=dtype)
    return Case(lambda v, p: trilinear_scatter(v, VoxelCorners(p, shape)), (values, position), 1)


def rays_case(sizes, dtype):
    count = sizes.number(0, 9)
    start = sizes.uniform(count, 3, low=-1.2, high=0.5, dtype=dtype)
    unit = torch.nn.functional.normalize(sizes.uniform(count, 3, low=0.1, dtype=dtype), dim=1)
    steps = sizes.integers(90, count)
    low, high = sizes.tensor(-1, -1, -1, dtype=dtype), sizes.tensor(1, 1, 1, dtype=dtype)
    mask = sizes.uniform(5, 4, 6) > 0.4
    scale = sizes.tensor(4, 3, 5, dtype=dtype) / (high - low)
    masked = sizes.option((mask, scale, -low * scale), ())
    return Case(lambda s, u: sample_rays(s, u, steps, low, high, 0.03, *masked), (start, unit), 0)


def weights_case(sizes, dtype):
    rays = sizes.number(1, 7)
    count = sizes.integers(sizes.number(1, 90), rays)
    if rays > 2:
        count[1] = 0
    ray_id = torch.arange(rays, device=sizes.device).repeat_interleave(count)
    alpha = sizes.uniform(len(ray_id), high=sizes.option(0.4, 0.05, 0.9), dtype=dtype)
    return Case(lambda a: alphas_to_weights(a, ray_id, rays), (alpha,), 1)


def variation_case(sizes, dtype):
    shape = (1, sizes.number(1, 3), sizes.number(1, 6), sizes.number(1, 5), sizes.number(1, 4))
    grid, grad = (sizes.uniform(*shape, low=-2, high=2, dtype=dtype) for _ in range(2))
    grad[grad.abs() < 1] = 0
    dense = sizes.option(False, True)

    def add(grid, grad):
        grad = grad.clone()
        total_variation_add_grad_(grid, grad, (0.1, 0.2, 0.3), dense)
        return grad

    return Case(add, (grid, grad), 0)


def adam_case(sizes, dtype):
    shape = (1, sizes.number(1, 5), sizes.number(0, 6), 4, 5)
    parameter, grad, mean, square, scale = (sizes.uniform(*shape, low=-1, dtype=dtype) for _ in range(5))
    square, scale = square.abs(), scale.abs()
    grad[grad < sizes.option(0.0, 0.9)] = 0
    options = dict(step_size=0.1, beta1=0.9, beta2=0.99, eps=1e-8, skip_zero_grad=sizes.option(True, False))
    layout = sizes.option(torch.channels_last_3d, torch.contiguous_format)
    scaled = sizes.option(False, True)

    def update(*tensors):
        parameter, grad, mean, square, scale = (x.clone(memory_format=layout) for x in tensors)
        masked_adam_(parameter, grad, mean, square, scale=scale if scaled else None, **options)
        return parameter, mean, square

    return Case(update, (parameter, grad, mean, square, scale), 0)


def rmsprop_case(sizes, dtype):
    shape = (sizes.number(0, 50), sizes.number(1, 28))
    parameter, grad, square = (sizes.uniform(*shape, low=-1, dtype=dtype) for _ in range(3))
    square = square.clamp(min=0)
    mask = sizes.uniform(shape[0]) > 0.5

    def update(parameter, grad, square):
        parameter, square = (x.clone(memory_format=torch.contiguous_format) for x in (parameter, square))
        masked_rmsprop_(parameter, grad.contiguous(), square, mask, lr=0.1)
        return parameter, square

    return Case(update, (parameter, grad, square), 0)


def hash_case(sizes, dtype):
    layout = hash_grid_layout(sizes.number(1, 4), sizes.option(5, 16), sizes.option(1.6, 2.0), 8)
    # Inside cells: on their borders an interpolation has no derivative.
    positions = sizes.uniform(sizes.number(0, 40), 3, low=0.01, high=0.99, dtype=dtype)
    params = sizes.uniform(layout.num_entries, sizes.number(1, 4), low=-1, dtype=dtype)
    return Case(lambda x, p: hash_grid(x, p, layout), (positions, params), 2)


CASES = {
    "box_iou_rotated": iou_case,
    "box_iou_rotated, aligned": aligned_iou_case,
    "nms_rotated": nms_case,
    "roi_align_rotated": roi_align_rotated_case,
    "carafe": carafe_case,
    "ms_deform_attn": ms_deform_attn_case,
    "furthest_point_sample": furthest_case,
    "ball_query": ball_case,
    "knn": knn_case,
    "three_nn": three_nn_case,
    "trilinear_gather": gather_case,
    "trilinear_scatter": scatter_case,
    "sample_rays": rays_case,
    "alphas_to_weights": weights_case,
    "total_variation_add_grad_": variation_case,
    "masked_adam_": adam_case,
    "masked_rmsprop_": rmsprop_case,
    "hash_grid": hash_case,
}
DIFFERENTIABLE = tuple(name for name, make in CASES.items() if make(Sizes("single"), torch.float64).differentiable)
WITH_HALF = ("carafe", "ms_deform_attn", "roi_align_rotated")


def outputs(case: Case, inputs=None) -> list[Tensor]:
    """What the function returns, as a list."""
    result = case.function(*(case.inputs if inputs is None else inputs))
    return [result] if isinstance(result, Tensor) else list(result)


def gradients(case: Case) -> list[Tensor]:
    """Gradients of a weighted sum of all floating-point outputs by all differentiable inputs."""
    leaves = [x.detach().clone().requires_grad_() for x in case.inputs[: case.differentiable]]
    results = outputs(case, (*leaves, *case.inputs[case.differentiable :]))
    # Numbers that every type holds.
    pulls = [torch.linspace(-1, 1, x.numel(), device=x.device).bfloat16().to(x.dtype).view_as(x) for x in results]
    return list(torch.autograd.grad(results, leaves, pulls))
