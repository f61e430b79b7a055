from perception.ops.box_iou_rotated import box_iou_rotated
from tests.ops.case import Case, boxes


def iou_case(sizes, dtype):
    first, second = boxes(sizes, sizes.number(0, 70), dtype), boxes(sizes, sizes.number(0, 50), dtype)
    options = dict(mode=sizes.option("iou", "iof"), clockwise=sizes.option(True, False))
    return Case(lambda a, b: box_iou_rotated(a, b, **options), (first, second), 0)


def aligned_iou_case(sizes, dtype):
    count = sizes.number(0, 300)
    first, second = boxes(sizes, count, dtype), boxes(sizes, count, dtype)
    return Case(lambda a, b: box_iou_rotated(a, b, "iof", aligned=True), (first, second), 0)


CASES = {"box_iou_rotated": iou_case, "box_iou_rotated, aligned": aligned_iou_case}
