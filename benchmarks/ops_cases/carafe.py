import torch
from torch import Tensor

from ops_cases import Timing, with_backward
from perception.ops.carafe import carafe


def timings(large: bool, device: str) -> dict[str, Timing]:
    batch = 8 if large else 1
    coarse = torch.randn(batch, 256, 64, 64, device=device)
    masks = torch.rand(batch, 25, 128, 128, device=device).softmax(1)

    def upsample(x: Tensor, weights: Tensor) -> Tensor:
        return carafe(x, weights, 5, 1, 2)

    name = f"carafe {batch} x 256 x 64 x 64 to 128 x 128, 5 x 5"
    moved, operations = 4 * (coarse.numel() + masks.numel() + 4 * coarse.numel()), 2.0 * 25 * 4 * coarse.numel()
    return {
        name: Timing(lambda: upsample(coarse, masks), None, moved, operations),
        f"{name}, forward and backward": Timing(
            with_backward(upsample, coarse, masks), None, 3 * moved, 3 * operations
        ),
    }
