from perception.ops.nms_match import nms_match
from tests.ops.case import Case
from tests.ops.cases.soft_nms import upright_boxes


def match_case(sizes, dtype):
    count = sizes.number(0, 150)
    scores = (sizes.uniform(count) * 16).round() / 16
    threshold = sizes.option(0.3, 0.1)
    corners = upright_boxes(sizes, count, dtype).round()
    return Case(lambda b, s: nms_match(b, s, threshold), (corners, scores.to(dtype)), 0)


CASES = {"nms_match": match_case}
THREADED = RAGGED = True
