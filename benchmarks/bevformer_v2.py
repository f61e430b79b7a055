"""Time and memory of BEVFormer's spatial cross-attention: a ragged gather against the release's padded re-batching.

Both are the same layer with the same weights on the same inputs, in turn, at the paper's sizes: 200 x 200 cells, six
cameras of nuScenes' kind, four levels of 640 x 1600 pixels (21 250 tokens a camera), 256 channels. The goal: 1.5 times
as fast, with half the memory. Memory is what a call needs at most beside weights and inputs, each in a process of its
own on the CPU.

    make ops
    python benchmarks/bevformer_v2.py --rounds 3 --threads 2
    python benchmarks/bevformer_v2.py --cells 60 --rounds 3      (fewer cells, for a machine with little memory)
"""

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from perception.engine.memory import peak_of
from perception.geometry import cameras, se3
from perception.geometry.bev import BevGrid
from perception.ops import backend
from projects.bevformer_v2.attention import SpatialCrossAttention
from projects.bevformer_v2.points import Rig, VisibleQueries, pillar_points, project_pillars, visible_queries

RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
HEIGHT, WIDTH = 640, 1600
SHAPES = torch.tensor([[80, 200], [40, 100], [20, 50], [10, 25]])
# Degrees to the left of ahead, and focal length: nuScenes' front, front right, front left, back, back left, back right.
CAMERAS = ((0, 1266), (-56, 1260), (55, 1272), (180, 809), (108, 1256), (-110, 1259))


class Case(NamedTuple):
    """A layer and what it looks at."""

    layer: SpatialCrossAttention
    query: Tensor
    tokens: Tensor
    references: Tensor
    mask: Tensor


def nuscenes_rig() -> Rig:
    """Matrices of six cameras, cut and not resized: the lower 640 rows of 900."""
    matrices = []
    for degrees, focal in CAMERAS:
        angle = math.radians(degrees)
        ahead, right = (
            torch.tensor([-math.sin(angle), math.cos(angle), 0]),
            torch.tensor([math.cos(angle), math.sin(angle), 0]),
        )
        rotation = torch.stack([right, torch.tensor([0.0, 0, -1]), ahead])
        pose = se3.compose(rotation, -rotation @ (0.8 * ahead + torch.tensor([0, 0, -0.3])))
        intrinsics = torch.tensor([[focal, 0, 808.0], [0, focal, 491.0 - 260], [0, 0, 1]])
        matrices.append(cameras.image_matrix(intrinsics, pose))
    return Rig(torch.stack(matrices)[None], (HEIGHT, WIDTH))


def make_case(cells: int, device: str) -> Case:
    """The layer and random features, the same each time."""
    torch.manual_seed(0)
    layer = SpatialCrossAttention(dropout=0.0).to(device)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    query = torch.randn(1, cells**2, 256, device=device, requires_grad=True)
    tokens = torch.randn(1, 6, int(SHAPES.prod(1).sum()), 256, device=device, requires_grad=True)
    pillars = pillar_points(BevGrid(RANGE[:2], RANGE[3:5], cells, cells), 4, 8.0, device)
    return Case(layer, query, tokens, *project_pillars(pillars, RANGE, nuscenes_rig()))


def ragged(case: Case) -> Tensor:
    """Ours; the list of what each camera sees is made anew, though six layers share it."""
    return case.layer(case.query, case.tokens, visible_queries(case.references, case.mask), SHAPES)


def padded(case: Case) -> Tensor:
    """The release's way: all cameras in one batch, each with as many queries as the one that sees the most."""
    hits = case.mask[0].any(-1)  # cameras, queries
    rows = [hit.nonzero()[:, 0] for hit in hits]
    longest = max(len(mine) for mine in rows)
    queries = case.query.new_zeros(len(rows), longest, case.query.shape[-1])
    places = case.references.new_zeros(len(rows), longest, *case.references.shape[-2:])
    for camera, mine in enumerate(rows):
        queries[camera, : len(mine)] = case.query[0, mine]
        places[camera, : len(mine)] = case.references[0, camera, mine]
    # Point p of a head from the pillar's point p mod 4.
    sampled = case.layer.deformable_attention(
        queries, None, case.tokens[0], places.repeat(1, 1, 2, 1)[:, :, None], SHAPES
    )
    slots = torch.zeros_like(case.query)
    for camera, mine in enumerate(rows):
        slots[0, mine] += sampled[camera, : len(mine)]
    seen = VisibleQueries([], [], hits.sum(0).clamp(min=1)[None, :, None]).seen
    return case.layer.output_proj(slots / seen) + case.query


WAYS = {"padded": padded, "ragged": ragged}


def run(way: Callable[[Case], Tensor], case: Case, training: bool) -> None:
    """One call, with its gradients in training."""
    if not training:
        with torch.no_grad():
            way(case)
        return
    way(case).mean().backward()
    case.query.grad = case.tokens.grad = None
    case.layer.zero_grad(set_to_none=True)


def seconds(way: Callable[[Case], Tensor], case: Case, training: bool) -> float:
    """Time of one call."""
    if case.query.is_cuda:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    run(way, case, training)
    if case.query.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def peak(name: str, cells: int, device: str, training: bool, mode: str) -> float:
    """MiB that a call needs at most beside what was there before."""
    torch.set_num_threads(1)
    case = make_case(cells, device)
    with backend.use(mode):
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            run(WAYS[name], case, training)
            return (torch.cuda.max_memory_allocated() - before) / 2**20
        run(WAYS[name], make_case(8, device), training)  # loads what a first call loads
        return peak_of(lambda: run(WAYS[name], case, training))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=200, help="side of the grid (default: 200)")
    parser.add_argument("--rounds", type=int, default=3, help="timed calls of each way (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    case = make_case(args.cells, args.device)
    counts = case.mask[0].any(-1).sum(1)
    print(f"{args.device}, {args.threads} threads, {args.cells} x {args.cells} cells, medians of {args.rounds} rounds")
    print(f"queries of each camera: {counts.tolist()}; {counts.sum() / (6 * counts.max()):.0%} of a padded table")
    with torch.no_grad():
        torch.testing.assert_close(ragged(case), padded(case), atol=1e-4, rtol=1e-4)
    print("| operators | | padded, ms | ragged, ms | ratio | padded, MiB | ragged, MiB | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    native = args.device in backend.devices()
    for mode in ["reference", "native"] if native else ["reference"]:
        for training in (False, True):
            times: dict[str, list[float]] = {name: [] for name in WAYS}
            for _ in range(args.rounds):
                for name, way in WAYS.items():
                    with backend.use(mode):
                        times[name].append(seconds(way, case, training))
            slow, fast = (1000 * statistics.median(times[name]) for name in WAYS)
            memory = []
            for name in WAYS:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    memory.append(pool.apply(peak, (name, args.cells, args.device, training, mode)))
            print(
                f"| {mode} | {'forward and backward' if training else 'forward'} | {slow:.0f} | {fast:.0f} "
                f"| {slow / fast:.2f} | {memory[0]:.0f} | {memory[1]:.0f} | {memory[1] / memory[0]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
