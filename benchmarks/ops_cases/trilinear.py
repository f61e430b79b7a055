import torch
import torch.nn.functional as F
from torch import Tensor

from ops_cases import Timing, with_backward
from perception.ops.trilinear import VoxelCorners, trilinear_gather, trilinear_scatter


def timings(large: bool, device: str) -> dict[str, Timing]:
    side, channels, count = (160, 12, 1_000_000) if large else (96, 12, 60_000)
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

    name = f"trilinear_gather {count} x {channels} of {side}^3"
    touched = torch.unique(VoxelCorners(position, shape).index).numel() * 4 * channels
    gathered, whole = count * (12 + 4 * channels) + touched, 4 * table.numel()
    return {
        name: Timing(lambda: read(table), lambda: read_grid(grid), gathered),
        f"{name}, forward and backward": Timing(
            with_backward(read, table), with_backward(read_grid, grid), 2 * gathered + whole
        ),
        f"trilinear_scatter {count} x {channels}": Timing(
            lambda: trilinear_scatter(values, VoxelCorners(position, shape)), None, gathered + whole
        ),
    }
