import torch

from ops_cases import Timing
from perception.ops.sparse_total_variation import sparse_total_variation_add_grad_

SIDE, CELLS = 128, 200_000


def timings(large: bool, device: str) -> dict[str, Timing]:
    active = torch.rand(SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) < 0.2
    links = torch.where(active, active.reshape(-1).cumsum(0).view(active.shape) - 1, -1).int().to(device)
    table = torch.randn(int(active.sum()), 27, device=device)
    grad, touched = torch.zeros_like(table), torch.zeros(len(table), dtype=torch.bool, device=device)
    cells = torch.arange(CELLS, device=device)
    return {
        f"sparse_total_variation {CELLS} cells x 27, a fifth occupied": Timing(
            lambda: sparse_total_variation_add_grad_(links, table, grad, touched, cells, 1.0, level_edges=True), None
        )
    }
