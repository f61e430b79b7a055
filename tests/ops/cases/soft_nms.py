import torch

from perception.ops.soft_nms import soft_nms
from tests.ops.case import Case, boxes


def upright_boxes(sizes, count, dtype):
    result = boxes(sizes, count, torch.float64)[:, :4]
    return torch.cat([result[:, :2], result[:, :2] + result[:, 2:]], 1).to(dtype)


def soft_nms_case(sizes, dtype):
    count = sizes.number(0, 150)
    # Scores and overlaps that many boxes share: the order of removal decides.
    scores = (sizes.uniform(count) * 8).round() / 8
    options = dict(
        method=sizes.option("linear", "gaussian", "naive"),
        offset=sizes.option(0, 1),
        min_score=sizes.option(0.1, 0.0, 1e-3),
        iou_threshold=sizes.option(0.3, 0.6),
        sigma=sizes.option(0.5, 0.2),
    )
    corners = upright_boxes(sizes, count, dtype).round()
    return Case(lambda b, s: soft_nms(b, s, **options), (corners, scores.to(dtype)), 0)


def gaussian_case(sizes, dtype):
    count = sizes.number(0, 150)
    scores = sizes.uniform(count, dtype=dtype)
    inputs = (upright_boxes(sizes, count, dtype), scores)
    return Case(lambda b, s: soft_nms(b, s, method="gaussian", min_score=0.05), inputs, 0)


def naive_case(sizes, dtype):
    count = sizes.number(0, 150)
    scores = sizes.uniform(count, dtype=dtype)
    inputs = (upright_boxes(sizes, count, dtype), scores)
    return Case(lambda b, s: soft_nms(b, s, 0.5, method="naive", offset=1), inputs, 0)


CASES = {"soft_nms": soft_nms_case, "soft_nms, gaussian": gaussian_case, "soft_nms, naive": naive_case}
THREADED = True
