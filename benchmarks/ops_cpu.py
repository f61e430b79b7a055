"""Native CPU kernels against the torch references, and against torchvision or torch where these have the operator.

Sizes are those of the recipes (or of one image, where a batch would take minutes). The contenders alternate; the table
shows medians.

    make ops
    python benchmarks/ops_cpu.py --threads 2 --rounds 7
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from perception.engine.memory import keep_freed_memory
from perception.ops import _backend
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

Runs = tuple[Callable[[], object], Callable[[], object] | None]


def boxes(count: int) -> Tensor:
    """Boxes of an aerial image of 1024 px, as many as a crowded one has."""
    return torch.rand(count, 5) * torch.tensor([1024, 1024, 80, 30, 3.1]) + torch.tensor([0, 0, 8, 8, -1.5])


def upright(rotated: Tensor) -> Tensor:
    return torch.cat([rotated[:, :2] - rotated[:, 2:4] / 2, rotated[:, :2] + rotated[:, 2:4] / 2], 1)


def with_backward(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], object]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    pull = torch.ones_like(function(*leaves))
    return lambda: torch.autograd.grad(function(*leaves), leaves, pull)


def detection() -> dict[str, Runs]:
    """Rotated detection, necks and transformers."""
    first, second, scores = boxes(1000), boxes(1000), torch.rand(2000)
    many = boxes(2000)
    features, rois = torch.randn(1, 256, 128, 128), torch.cat([torch.zeros(500, 1), boxes(500)], 1)
    aligned = torch.cat([rois[:, :1], upright(rois[:, 1:])], 1)

    def pool(x: Tensor) -> Tensor:
        return roi_align_rotated(x, rois, (7, 7), 0.125, 2)

    def pool_upright(x: Tensor) -> Tensor:
        return torchvision.ops.roi_align(x, aligned, (7, 7), 0.125, 2, True)

    coarse, masks = torch.randn(1, 256, 64, 64), torch.rand(1, 25, 128, 128).softmax(1)

    def upsample(x: Tensor, weights: Tensor) -> Tensor:
        return carafe(x, weights, 5, 1, 2)

    shapes = [(64, 64), (32, 32), (16, 16), (8, 8)]
    tokens = sum(height * width for height, width in shapes)
    value = torch.randn(1, tokens, 8, 32)
    places, weights = torch.rand(1, tokens, 8, 4, 4, 2), torch.rand(1, tokens, 8, 4, 4).softmax(-1)

    def attend(v: Tensor, p: Tensor, w: Tensor) -> Tensor:
        return multi_scale_deformable_attention(v, shapes, p, w)

    return {
        "box_iou_rotated 1000 x 1000": (lambda: box_iou_rotated(first, second), None),
        "nms_rotated 2000": (
            lambda: nms_rotated(many, scores, 0.1),
            lambda: torchvision.ops.nms(upright(many), scores, 0.1),
        ),
        "roi_align_rotated 500 of 256 x 7 x 7": (lambda: pool(features), lambda: pool_upright(features)),
        "  forward and backward": (with_backward(pool, features), with_backward(pool_upright, features)),
        "carafe 256 x 64 x 64 to 128 x 128, 5 x 5": (lambda: upsample(coarse, masks), None),
        "   forward and backward": (with_backward(upsample, coarse, masks), None),
        f"ms_deform_attn {tokens} queries, 8 x 32, 4 x 4": (lambda: attend(value, places, weights), None),
        "    forward and backward": (with_backward(attend, value, places, weights), None),
    }


def points() -> dict[str, Runs]:
    """Point clouds."""
    cloud = torch.rand(1, 16384, 3) * 4
    some = cloud[:, :1024].contiguous()
    return {
        "furthest_point_sample 16384 to 1024": (lambda: furthest_point_sample(cloud, 1024), None),
        "ball_query 32 of 16384, 1024 centres": (lambda: ball_query(cloud, some, 0, 0.3, 32), None),
        "knn 16 of 16384, 1024 centres": (lambda: knn(16, cloud, some), None),
        "three_nn 16384 among 1024": (lambda: three_nn(cloud, some), None),
    }


def radiance() -> dict[str, Runs]:
    """Voxel fields."""
    side, channels, count = 96, 12, 60_000
    shape = (side,) * 3
    # Points of rays: near one another, as in a batch of training.
    start, step = torch.rand(count // 50, 1, 3), F.normalize(torch.randn(count // 50, 1, 3), dim=-1) / 2
    position = (start + step * torch.linspace(0, 1, 50)[:, None]).reshape(-1, 3).clamp(0, 1) * (side - 1)
    table, values = torch.randn(side**3, channels), torch.randn(count, channels)
    grid = table.t().reshape(1, channels, *shape).contiguous()
    unit = (position.flip(-1) / (side - 1) * 2 - 1)[None, None, None]

    def read(x: Tensor) -> Tensor:
        return trilinear_gather(x, VoxelCorners(position, shape))

    def read_grid(x: Tensor) -> Tensor:
        return F.grid_sample(x, unit, align_corners=True)

    rays = 4096
    origin = F.normalize(torch.randn(rays, 3), dim=1) * 1.7
    direction = F.normalize(torch.rand(rays, 3) - 0.5 - origin, dim=1)
    axis = torch.linspace(-1, 1, 128)
    mask = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0) < 0.45
    low, high = torch.full((3,), -1.0), torch.full((3,), 1.0)
    scale = torch.full((3,), 127 / 2)
    steps = torch.full((rays,), 400)
    alpha = torch.rand(rays * 60) * 0.1
    ray_id = torch.arange(rays).repeat_interleave(60)

    def composite(a: Tensor) -> Tensor:
        return alphas_to_weights(a, ray_id, rays)[0]

    def parameter() -> list[Tensor]:
        return [torch.randn(1, channels, *shape).contiguous(memory_format=torch.channels_last_3d) for _ in range(4)]

    adam = parameter()
    adam[1][:, :, : side * 9 // 10] = 0
    adam[3].abs_()
    rows = [torch.randn(300_000, 27) for _ in range(3)]
    rows[2].abs_()
    marked = torch.rand(300_000) < 0.2
    smooth = parameter()
    layout = hash_grid_layout(16, 32, 1.447269237440378, 19)
    inside, params = torch.rand(50_000, 3), torch.randn(layout.num_entries, 2)
    options = dict(step_size=1e-3, beta1=0.9, beta2=0.99, eps=1e-8)
    return {
        f"trilinear_gather {count} x {channels} of {side}^3": (lambda: read(table), lambda: read_grid(grid)),
        "     forward and backward": (with_backward(read, table), with_backward(read_grid, grid)),
        f"trilinear_scatter {count} x {channels}": (
            lambda: trilinear_scatter(values, VoxelCorners(position, shape)),
            None,
        ),
        f"sample_rays {rays} x 400 steps, mask 128^3": (
            lambda: sample_rays(origin, direction, steps, low, high, 2 / 256, mask, scale, scale),
            None,
        ),
        f"alphas_to_weights {rays} x 60": (lambda: composite(alpha), None),
        "      forward and backward": (with_backward(composite, alpha), None),
        f"masked_adam_ {channels} x {side}^3, a tenth touched": (
            lambda: masked_adam_(*adam, skip_zero_grad=True, **options),
            None,
        ),
        f"masked_adam_ {channels} x {side}^3, all": (lambda: masked_adam_(*adam, **options), None),
        "masked_rmsprop_ 300000 x 27, a fifth marked": (lambda: masked_rmsprop_(*rows, marked, lr=1e-3), None),
        f"total_variation_add_grad_ {channels} x {side}^3": (
            lambda: total_variation_add_grad_(smooth[0], smooth[1], (1e-3,) * 3),
            None,
        ),
        "hash_grid 50000 points, 16 x 2, 2^19": (lambda: hash_grid(inside, params, layout), None),
        "       forward and backward": (with_backward(lambda p: hash_grid(inside, p, layout), params), None),
    }


def milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each contender (default: 7)")
    parser.add_argument("--only", default="", help="time only operators whose name contains this")
    args = parser.parse_args()
    if "cpu" not in _backend.devices():
        sys.exit(f"No native kernels to time: {_backend.reason()}.")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    print(f"torch {torch.__version__}, {args.threads} threads, medians of {args.rounds} rounds")
    print("| operator | reference, ms | native, ms | reference / native | torch(vision), ms | torch(vision) / native |")
    print("|---|---|---|---|---|---|")
    slower, operator = [], ""
    for group in (detection, points, radiance):
        for name, (run, peer) in group().items():
            operator = name if name[0] != " " else operator
            if args.only not in operator:
                continue
            times: dict[str, list[float]] = {"reference": [], "native": [], "peer": []}
            for round_number in range(args.rounds + 1):
                for mode in ("reference", "native"):
                    with _backend.use(mode):
                        times[mode].append(milliseconds(run))
                if peer is not None:
                    times["peer"].append(milliseconds(peer))
                if round_number == 0:  # warms caches up
                    for values in times.values():
                        values.clear()
            reference, native = (statistics.median(times[mode]) for mode in ("reference", "native"))
            cells = [name.strip(), f"{reference:.2f}", f"{native:.2f}", f"{reference / native:.1f}"]
            other = statistics.median(times["peer"]) if peer is not None else None
            cells += ["", ""] if other is None else [f"{other:.2f}", f"{other / native:.1f}"]
            print("| " + " | ".join(cells) + " |", flush=True)
            if native > reference:
                slower.append(name.strip())
    if slower:
        sys.exit(f"Slower than the reference, so not worth keeping: {', '.join(slower)}.")


if __name__ == "__main__":
    main()
