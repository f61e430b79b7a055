import torch

from perception.ops.sample_rays import sample_rays
from tests.ops.case import Case


def rays_case(sizes, dtype):
    count = sizes.number(0, 9)
    start = sizes.uniform(count, 3, low=-1.2, high=0.5, dtype=dtype)
    unit = torch.nn.functional.normalize(sizes.uniform(count, 3, low=0.1, dtype=dtype), dim=1)
    steps = sizes.integers(90, count)
    low, high = sizes.tensor(-1, -1, -1, dtype=dtype), sizes.tensor(1, 1, 1, dtype=dtype)
    mask = sizes.uniform(5, 4, 6) > 0.4
    scale = sizes.tensor(4, 3, 5, dtype=dtype) / (high - low)
    masked = sizes.option((mask, scale, -low * scale), ())
    return Case(lambda s, u: sample_rays(s, u, steps, low, high, 0.03, *masked), (start, unit), 0)


CASES = {"sample_rays": rays_case}
