import torch

from ops_cases import Timing, boxes, torchvision, upright
from perception.ops.soft_nms import soft_nms


def timings(large: bool, device: str) -> dict[str, Timing]:
    count = 4000 if large else 2000
    many, scores = upright(boxes(count)).to(device), torch.rand(count, device=device)
    peer = (lambda: torchvision.ops.nms(many, scores, 0.3)) if torchvision else None
    # Sixteen operations for each pair that is compared; nearly all boxes stay.
    return {
        f"soft_nms {count}, {method}": Timing(
            lambda method=method: soft_nms(many, scores, method=method), peer, 0, 16 * count**2 / 2, compiles=False
        )
        for method in ("linear", "gaussian")
    }
