from perception.ops.furthest_point_sample import furthest_point_sample
from tests.ops.case import Case, cloud_pair


def furthest_case(sizes, dtype):
    points, _ = cloud_pair(sizes, dtype)
    if points.shape[1] > 3:
        points[:, 1] = points[:, 0].clone()
        points[:, 2] = 0.01
    number, skip = sizes.number(0, 9), sizes.option(True, False)
    return Case(lambda p: furthest_point_sample(p, number, skip), (points,), 0)


CASES = {"furthest_point_sample": furthest_case}
THREADED = True
