"""Time of marching rays through a sparse field, forward and backward: native kernels, the reference in torch, and the
dense field and sampler of DirectVoxGO on the same rays and voxels.

The field is a sheet of voxels in a grid; DirectVoxGO's field has 12 features a voxel and its network, and a mask of the
same voxels. Measurements alternate.

    python benchmarks/streamrf.py --rounds 5
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from perception.ops import backend
from perception.ops.dilate_mask import dilate_mask
from perception.ops.march_rays import March
from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.sparse_grid import SparseGrid

MARCH = March()


def slab(size: tuple[int, int, int]) -> torch.Tensor:
    """A wavy sheet of voxels, about a tenth of the grid."""
    x, y, z = torch.meshgrid(*(torch.linspace(-1, 1, count) for count in size), indexing="ij")
    return (z - 0.3 * torch.sin(3 * x) * torch.cos(2 * y)).abs() < 0.1


def rays_through(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rays (N, 3) from one side of the box [-1, 1] to the other."""
    origins = torch.cat([2 * torch.rand(count, 2) - 1, torch.full((count, 1), -1.2)], 1)
    ends = torch.cat([2 * torch.rand(count, 2) - 1, torch.full((count, 1), 1.2)], 1)
    return origins, torch.nn.functional.normalize(ends - origins, dim=1)


def seconds_of(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(192, 192, 64))
    parser.add_argument("--rays", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    active = slab(tuple(options.size))
    voxels = int(active.sum())
    grid = SparseGrid(active, (1.0, 1.0, 1.0), density=20 * torch.rand(voxels, 1), sh=0.3 * torch.randn(voxels, 27))
    origins, directions = rays_through(options.rays)
    target = torch.rand(options.rays, 3)
    voxels_in_all = active.numel()
    dense = DirectVoxGO(
        (-1.0,) * 3,
        (1.0,) * 3,
        num_voxels=voxels_in_all,
        num_voxels_base=voxels_in_all,
        alpha_init=0.1,
        rgbnet_dim=12,
        mask=active,
    )

    def sparse_step(mode: str) -> None:
        with backend.use(mode):
            grid.squared_error_step(origins, directions, target, MARCH)

    def dense_step() -> None:
        rendering = dense(origins, directions, directions, near=0.0, stepsize=0.5)
        (rendering.rgb_marched - target).square().mean().backward()

    contenders: dict[str, Callable[[], None]] = {"reference in torch": lambda: sparse_step("reference")}
    if "cpu" in backend.devices():
        contenders["native kernels"] = lambda: sparse_step("native")
        contenders["dilation of the grid by 6, native"] = lambda: dilate_mask(active, 6)
    contenders["dense field of DirectVoxGO"] = dense_step
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, run in contenders.items():
            found[name].append(seconds_of(run))
    print(f"{options.rays} rays, {voxels} of {active.numel()} voxels, {torch.get_num_threads()} threads")
    for name, values in found.items():
        print(f"{name:40s} {1000 * statistics.median(values):9.1f} ms (least {1000 * min(values):.1f})")


if __name__ == "__main__":
    main()
