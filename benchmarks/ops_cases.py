"""Operators with native kernels at the sizes of the recipes: what the benchmarks of the CPU and of GPUs time.

Every case says how many bytes it cannot avoid to move and, where that may be the limit, how many operations to make.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
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

try:
    import torchvision
except ImportError:  # a machine with torch alone: no peers
    torchvision = None


class Timing(NamedTuple):
    """A contender with what it is compared to."""

    run: Callable[[], object]
    peer: Callable[[], object] | None = None  # torchvision's or torch's operator nearest to it
    bytes: float = 0  # that must be moved
    operations: float = 0  # that must be made
    compiles: bool = True  # whether torch.compile of the reference ends within minutes

    def bound(self, bandwidth: float, arithmetic: float) -> tuple[float, str]:
        """The least time in seconds, given bytes and operations per second, and which of the two sets it."""
        memory, compute = self.bytes / bandwidth, self.operations / arithmetic
        return (memory, "memory") if memory >= compute else (compute, "arithmetic")


def boxes(count: int) -> Tensor:
    """Boxes of an aerial image of 1024 px, as many as a crowded one has."""
    return torch.rand(count, 5) * torch.tensor([1024, 1024, 80, 30, 3.1]) + torch.tensor([0, 0, 8, 8, -1.5])


def upright(rotated: Tensor) -> Tensor:
    """Upright boxes (xyxy) of the same centres and sizes."""
    return torch.cat([rotated[:, :2] - rotated[:, 2:4] / 2, rotated[:, :2] + rotated[:, 2:4] / 2], 1)


def with_backward(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], object]:
    """The function and its gradient by the inputs."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    pull = torch.ones_like(function(*leaves))
    return lambda: torch.autograd.grad(function(*leaves), leaves, pull)


def detection(large: bool, device: str) -> dict[str, Timing]:
    """Rotated detection, necks and transformers."""
    pairs, crowd, regions, batch = (4000, 8000, 2000, 8) if large else (1000, 2000, 500, 1)
    first, second = boxes(pairs).to(device), boxes(pairs).to(device)
    many, scores = boxes(crowd).to(device), torch.rand(crowd, device=device)
    features = torch.randn(1, 256, 128, 128, device=device)
    rois = torch.cat([torch.zeros(regions, 1), boxes(regions)], 1).to(device)
    aligned = torch.cat([rois[:, :1], upright(rois[:, 1:])], 1)

    def pool(x: Tensor) -> Tensor:
        return roi_align_rotated(x, rois, (7, 7), 0.125, 2)

    def pool_upright(x: Tensor) -> Tensor:
        return torchvision.ops.roi_align(x, aligned, (7, 7), 0.125, 2, True)

    coarse = torch.randn(batch, 256, 64, 64, device=device)
    masks = torch.rand(batch, 25, 128, 128, device=device).softmax(1)

    def upsample(x: Tensor, weights: Tensor) -> Tensor:
        return carafe(x, weights, 5, 1, 2)

    shapes = [(100, 167), (50, 84), (25, 42), (13, 21)] if large else [(64, 64), (32, 32), (16, 16), (8, 8)]
    images, tokens = (2 if large else 1), sum(height * width for height, width in shapes)
    value = torch.randn(images, tokens, 8, 32, device=device)
    places = torch.rand(images, tokens, 8, 4, 4, 2, device=device)
    weights = torch.rand(images, tokens, 8, 4, 4, device=device).softmax(-1)

    def attend(v: Tensor, p: Tensor, w: Tensor) -> Tensor:
        return multi_scale_deformable_attention(v, shapes, p, w)

    pooled, sampled = 4 * regions * 256 * 49, 4 * images * tokens * 8 * (2 * 32 + 16 * 3)
    upsampled = 4 * (coarse.numel() + masks.numel() + 4 * coarse.numel())
    reassembled, attended = 2.0 * 25 * 4 * coarse.numel(), 2.0 * 4 * 16 * 32 * images * tokens * 8
    peers = torchvision is not None
    return {
        f"box_iou_rotated {pairs} x {pairs}": Timing(lambda: box_iou_rotated(first, second), None, 4 * pairs**2),
        f"nms_rotated {crowd}": Timing(
            lambda: nms_rotated(many, scores, 0.1),
            (lambda: torchvision.ops.nms(upright(many), scores, 0.1)) if peers else None,
            crowd**2 / 8,
        ),
        f"roi_align_rotated {regions} of 256 x 7 x 7": Timing(
            lambda: pool(features),
            (lambda: pool_upright(features)) if peers else None,
            pooled + 4 * features.numel(),
            2 * 16 * pooled / 4,
        ),
        "  forward and backward": Timing(
            with_backward(pool, features),
            with_backward(pool_upright, features) if peers else None,
            2 * (pooled + 4 * features.numel()),
            2 * 2 * 16 * pooled / 4,
        ),
        f"carafe {batch} x 256 x 64 x 64 to 128 x 128, 5 x 5": Timing(
            lambda: upsample(coarse, masks), None, upsampled, reassembled
        ),
        "   forward and backward": Timing(with_backward(upsample, coarse, masks), None, 3 * upsampled, 3 * reassembled),
        f"ms_deform_attn {images} x {tokens} queries, 8 x 32, 4 x 4": Timing(
            lambda: attend(value, places, weights), None, sampled, attended
        ),
        "    forward and backward": Timing(
            with_backward(attend, value, places, weights), None, 3 * sampled, 3 * attended
        ),
    }


def points(large: bool, device: str) -> dict[str, Timing]:
    """Point clouds."""
    batch = 32 if large else 1
    cloud = torch.rand(batch, 16384, 3, device=device) * 4
    some = cloud[:, :1024].contiguous()
    distances = 8.0 * batch * 16384 * 1024  # differences, squares, sums and a comparison
    return {
        f"furthest_point_sample {batch} x 16384 to 1024": Timing(
            lambda: furthest_point_sample(cloud, 1024), operations=distances, compiles=False
        ),
        f"ball_query 32 of 16384, {batch} x 1024 centres": Timing(
            lambda: ball_query(cloud, some, 0, 0.3, 32), operations=distances
        ),
        f"knn 16 of 16384, {batch} x 1024 centres": Timing(lambda: knn(16, cloud, some), operations=distances),
        f"three_nn {batch} x 16384 among 1024": Timing(lambda: three_nn(cloud, some), operations=distances),
    }


def radiance(large: bool, device: str) -> dict[str, Timing]:
    """Voxel fields."""
    side, channels, count, rays = (160, 12, 1_000_000, 65_536) if large else (96, 12, 60_000, 4096)
    shape = (side,) * 3
    # Points of rays: near one another, as in a batch of training.
    start, step = torch.rand(count // 50, 1, 3), F.normalize(torch.randn(count // 50, 1, 3), dim=-1) / 2
    place = (start + step * torch.linspace(0, 1, 50)[:, None]).reshape(-1, 3).clamp(0, 1)
    position = (place * (side - 1)).to(device)
    table, values = torch.randn(side**3, channels, device=device), torch.randn(count, channels, device=device)
    grid = table.t().reshape(1, channels, *shape).contiguous()
    unit = (position.flip(-1) / (side - 1) * 2 - 1)[None, None, None]

    def read(x: Tensor) -> Tensor:
        return trilinear_gather(x, VoxelCorners(position, shape))

    def read_grid(x: Tensor) -> Tensor:
        return F.grid_sample(x, unit, align_corners=True)

    origin = F.normalize(torch.randn(rays, 3), dim=1) * 1.7
    direction = F.normalize(torch.rand(rays, 3) - 0.5 - origin, dim=1).to(device)
    origin = origin.to(device)
    axis = torch.linspace(-1, 1, 128, device=device)
    mask = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0) < 0.45
    low, high, scale = (torch.full((3,), number, device=device) for number in (-1.0, 1.0, 63.5))
    steps = torch.full((rays,), 400, device=device)
    alpha = torch.rand(rays * 60, device=device) * 0.1
    ray_id = torch.arange(rays, device=device).repeat_interleave(60)

    def composite(a: Tensor) -> Tensor:
        return alphas_to_weights(a, ray_id, rays)[0]

    def parameters() -> list[Tensor]:
        numbers = (torch.randn(1, channels, *shape, device=device) for _ in range(4))
        return [x.contiguous(memory_format=torch.channels_last_3d) for x in numbers]

    adam, smooth = parameters(), parameters()
    adam[1][:, :, : side * 9 // 10] = 0
    adam[3].abs_()
    number, marked_share = adam[0].numel(), 0.2
    rows = [torch.randn(300_000, 27, device=device) for _ in range(3)]
    rows[2].abs_()
    marked = torch.rand(300_000, device=device) < marked_share
    layout = hash_grid_layout(16, 32, 1.447269237440378, 19)
    inside, params = torch.rand(count, 3, device=device), torch.randn(layout.num_entries, 2, device=device)
    options = dict(step_size=1e-3, beta1=0.9, beta2=0.99, eps=1e-8)
    touched = torch.unique(VoxelCorners(position, shape).index).numel() * 4 * channels
    gathered = count * (12 + 4 * channels) + touched
    encoded = count * 16 * (12 + 8) + 4 * params.numel()
    return {
        f"trilinear_gather {count} x {channels} of {side}^3": Timing(
            lambda: read(table), lambda: read_grid(grid), gathered
        ),
        "     forward and backward": Timing(
            with_backward(read, table), with_backward(read_grid, grid), 2 * gathered + 4 * number
        ),
        f"trilinear_scatter {count} x {channels}": Timing(
            lambda: trilinear_scatter(values, VoxelCorners(position, shape)), None, gathered + 4 * number
        ),
        f"sample_rays {rays} x 400 steps, mask 128^3": Timing(
            lambda: sample_rays(origin, direction, steps, low, high, 2 / 256, mask, scale, scale),
            operations=2 * rays * 400 * 20.0,
        ),
        f"alphas_to_weights {rays} x 60": Timing(lambda: composite(alpha), None, 12 * len(alpha)),
        "      forward and backward": Timing(with_backward(composite, alpha), None, 32 * len(alpha)),
        f"masked_adam_ {channels} x {side}^3, a tenth touched": Timing(
            lambda: masked_adam_(*adam, skip_zero_grad=True, **options), None, (4 + 2.4) * number
        ),
        f"masked_adam_ {channels} x {side}^3, all": Timing(lambda: masked_adam_(*adam, **options), None, 28 * number),
        "masked_rmsprop_ 300000 x 27, a fifth marked": Timing(
            lambda: masked_rmsprop_(*rows, marked, lr=1e-3), None, 20 * marked_share * rows[0].numel()
        ),
        f"total_variation_add_grad_ {channels} x {side}^3": Timing(
            lambda: total_variation_add_grad_(smooth[0], smooth[1], (1e-3,) * 3), None, 12 * number
        ),
        f"hash_grid {count} points, 16 x 2, 2^19": Timing(lambda: hash_grid(inside, params, layout), None, encoded),
        "       forward and backward": Timing(
            with_backward(lambda p: hash_grid(inside, p, layout), params), None, 2 * encoded + 4 * params.numel()
        ),
    }


GROUPS = (detection, points, radiance)
