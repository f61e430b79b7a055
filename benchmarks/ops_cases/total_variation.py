import torch

from ops_cases import Timing
from perception.ops.total_variation import total_variation_add_grad_


def timings(large: bool, device: str) -> dict[str, Timing]:
    side, channels = (160 if large else 96), 12
    grid, grad = (
        torch.randn(1, channels, side, side, side, device=device).contiguous(memory_format=torch.channels_last_3d)
        for _ in range(2)
    )
    return {
        f"total_variation_add_grad_ {channels} x {side}^3": Timing(
            lambda: total_variation_add_grad_(grid, grad, (1e-3,) * 3), None, 12 * grid.numel()
        )
    }
