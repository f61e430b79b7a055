import math

from perception.ops.trilinear import VoxelCorners, trilinear_gather, trilinear_scatter
from tests.ops.case import Case


def voxels(sizes, dtype):
    shape = (sizes.number(1, 5), sizes.number(1, 4), sizes.number(1, 6))
    count = sizes.number(0, 130)
    position = sizes.uniform(count, 3, low=-1.5, high=1.5) * sizes.tensor(*shape)
    if count > 3:
        position[1], position[2, 0], position[3] = 1e9, math.nan, -1e9
    return shape, position.to(dtype)


def gather_case(sizes, dtype):
    shape, position = voxels(sizes, dtype)
    table = sizes.uniform(math.prod(shape), sizes.number(1, 13), low=-1, dtype=dtype)
    return Case(lambda t, p: trilinear_gather(t, VoxelCorners(p, shape)), (table, position), 1)


def scatter_case(sizes, dtype):
    shape, position = voxels(sizes, dtype)
    values = sizes.uniform(len(position), sizes.number(1, 13), low=-1, dtype=dtype)
    return Case(lambda v, p: trilinear_scatter(v, VoxelCorners(p, shape)), (values, position), 1)


CASES = {"trilinear_gather": gather_case, "trilinear_scatter": scatter_case}
