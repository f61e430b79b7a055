from perception.ops.ball_query import ball_query
from tests.ops.case import Case, cloud_pair


def ball_case(sizes, dtype):
    points, centres = cloud_pair(sizes, dtype)
    low, number = sizes.option(0.1, 0.0), sizes.number(0, 20)
    if centres.shape[1] > 1:
        centres[:, 1] = 50.0  # nothing near
    return Case(lambda p, c: ball_query(p, c, low, 0.6, number), (points, centres), 0)


CASES = {"ball_query": ball_case}
