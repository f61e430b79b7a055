from ops_cases import Timing, boxes
from perception.ops.box_iou_rotated import box_iou_rotated


def timings(large: bool, device: str) -> dict[str, Timing]:
    count = 4000 if large else 1000
    first, second = boxes(count).to(device), boxes(count).to(device)
    return {f"box_iou_rotated {count} x {count}": Timing(lambda: box_iou_rotated(first, second), None, 4 * count**2)}
