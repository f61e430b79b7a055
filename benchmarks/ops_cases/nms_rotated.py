import torch

from ops_cases import Timing, boxes, torchvision, upright
from perception.ops.nms_rotated import nms_rotated


def timings(large: bool, device: str) -> dict[str, Timing]:
    count = 8000 if large else 2000
    many, scores = boxes(count).to(device), torch.rand(count, device=device)
    peer = (lambda: torchvision.ops.nms(upright(many), scores, 0.1)) if torchvision else None
    return {f"nms_rotated {count}": Timing(lambda: nms_rotated(many, scores, 0.1), peer, count**2 / 8)}
