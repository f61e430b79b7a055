from perception.ops.nms_rotated import nms_rotated
from tests.ops.case import Case, boxes


def nms_case(sizes, dtype):
    count = sizes.number(0, 220)
    labels = sizes.integers(3, count)
    options = dict(labels=sizes.option(None, labels), clockwise=sizes.option(True, False))
    scores = sizes.uniform(count, dtype=dtype)
    return Case(lambda b, s: nms_rotated(b, s, 0.3, **options), (boxes(sizes, count, dtype), scores), 0)


CASES = {"nms_rotated": nms_case}
