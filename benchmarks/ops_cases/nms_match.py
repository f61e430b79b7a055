import torch

from ops_cases import Timing, boxes, torchvision, upright
from perception.ops.nms_match import nms_match


def timings(large: bool, device: str) -> dict[str, Timing]:
    count = 4000 if large else 2000
    many, scores = upright(boxes(count)).to(device), torch.rand(count, device=device)
    peer = (lambda: torchvision.ops.nms(many, scores, 0.3)) if torchvision else None
    return {
        f"nms_match {count}": Timing(lambda: nms_match(many, scores, 0.3), peer, 0, 16 * count**2 / 2, compiles=False)
    }
