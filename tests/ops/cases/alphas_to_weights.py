import torch

from perception.ops.alphas_to_weights import alphas_to_weights
from tests.ops.case import Case


def weights_case(sizes, dtype):
    rays = sizes.number(1, 7)
    count = sizes.integers(sizes.number(1, 90), rays)
    if rays > 2:
        count[1] = 0
    ray_id = torch.arange(rays, device=sizes.device).repeat_interleave(count)
    alpha = sizes.uniform(len(ray_id), high=sizes.option(0.4, 0.05, 0.9), dtype=dtype)
    return Case(lambda a: alphas_to_weights(a, ray_id, rays), (alpha,), 1)


CASES = {"alphas_to_weights": weights_case}
