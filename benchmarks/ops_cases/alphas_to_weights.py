import torch
from torch import Tensor

from ops_cases import Timing, with_backward
from perception.ops.alphas_to_weights import alphas_to_weights


def timings(large: bool, device: str) -> dict[str, Timing]:
    rays = 65_536 if large else 4096
    alpha = torch.rand(rays * 60, device=device) * 0.1
    ray_id = torch.arange(rays, device=device).repeat_interleave(60)

    def composite(a: Tensor) -> Tensor:
        return alphas_to_weights(a, ray_id, rays)[0]

    name = f"alphas_to_weights {rays} x 60"
    return {
        name: Timing(lambda: composite(alpha), None, 12 * len(alpha)),
        f"{name}, forward and backward": Timing(with_backward(composite, alpha), None, 32 * len(alpha)),
    }
