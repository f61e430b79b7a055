from perception.ops.three_nn import three_nn
from tests.ops.case import Case, cloud_pair


def three_nn_case(sizes, dtype):
    points, centres = cloud_pair(sizes, dtype)
    points[:, ::2] = points[:, :1].clone()  # ties
    return Case(lambda p, c: three_nn(c, p), (points, centres), 0)


CASES = {"three_nn": three_nn_case}
