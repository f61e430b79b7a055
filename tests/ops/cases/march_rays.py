import torch

from perception.ops.march_rays import Field, March, Rays, march_gradient, march_rays
from perception.radiance.sparse_grid import empty_levels
from tests.ops.case import Case

THREADED = True


def march_case(sizes, dtype):
    shape = tuple(sizes.number(1, 6) for _ in range(3))
    active = sizes.uniform(*shape) > 0.5
    active.view(-1)[0] = True  # an empty field has no gradient
    links = torch.where(active, active.reshape(-1).cumsum(0).view(shape) - 1, -1).int()
    voxels, functions, rays = int(active.sum()), sizes.option(9, 1, 4), sizes.number(0, 5)
    density = sizes.uniform(voxels, 1, low=-1, high=4, dtype=dtype)
    sh = sizes.uniform(voxels, 3 * functions, low=-1, dtype=dtype)
    origin = sizes.uniform(rays, 3, low=-2, high=0, dtype=dtype)
    towards = sizes.uniform(rays, 3, dtype=dtype) * sizes.tensor(*shape, dtype=dtype) - origin
    direction = torch.nn.functional.normalize(towards, dim=1)
    basis = sizes.uniform(rays, functions, low=-1, dtype=dtype)
    length = sizes.uniform(rays, low=0.5, dtype=dtype)
    levels = empty_levels(active)
    march = March(stop_thresh=sizes.option(1e-3, 1e-7, 0.1))

    def render(density, sh, origin, direction, basis, length):
        field, rays = Field(links, density, sh, levels), Rays(origin, direction, basis, length)
        if torch.is_grad_enabled() and (density.requires_grad or sh.requires_grad):
            return march_rays(field, rays, march)[0]
        found = march_rays(field, rays, march)
        *gradients, touched = march_gradient(field, rays, march, found[0], found[0] - 0.3, 1e-2)
        return *found, *gradients, touched

    return Case(render, (density, sh, origin, direction, basis, length), 2)


CASES = {"march_rays": march_case}
