from perception.ops.knn import knn
from tests.ops.case import Case, cloud_pair


def knn_case(sizes, dtype):
    k = sizes.number(0, 12)
    return Case(lambda p, c: knn(k, p, c), cloud_pair(sizes, dtype), 0)


CASES = {"knn": knn_case}
