import torch

from ops_cases import Timing
from perception.ops.masked_rmsprop import masked_rmsprop_


def timings(large: bool, device: str) -> dict[str, Timing]:
    marked_share = 0.2
    rows = [torch.randn(300_000, 27, device=device) for _ in range(3)]
    rows[2].abs_()
    marked = torch.rand(300_000, device=device) < marked_share
    return {
        "masked_rmsprop_ 300000 x 27, a fifth marked": Timing(
            lambda: masked_rmsprop_(*rows, marked, lr=1e-3), None, 20 * marked_share * rows[0].numel()
        )
    }
