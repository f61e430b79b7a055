import torch
from torch import Tensor

from ops_cases import Timing, with_backward
from perception.ops.hash_grid import hash_grid, hash_grid_layout


def timings(large: bool, device: str) -> dict[str, Timing]:
    count = 1_000_000 if large else 60_000
    layout = hash_grid_layout(16, 32, 1.447269237440378, 19)
    inside, params = torch.rand(count, 3, device=device), torch.randn(layout.num_entries, 2, device=device)

    def encode(p: Tensor) -> Tensor:
        return hash_grid(inside, p, layout)

    name = f"hash_grid {count} points, 16 x 2, 2^19"
    encoded = count * 16 * (12 + 8) + 4 * params.numel()
    return {
        name: Timing(lambda: encode(params), None, encoded),
        f"{name}, forward and backward": Timing(with_backward(encode, params), None, 2 * encoded + 4 * params.numel()),
    }
