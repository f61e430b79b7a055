import torch

from ops_cases import Timing
from perception.ops.dilate_mask import dilate_mask


def timings(large: bool, device: str) -> dict[str, Timing]:
    size = (768, 768, 128) if large else (256, 256, 128)
    mask = torch.zeros(size, dtype=torch.bool, device=device)
    mask[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2, 40:80] = True
    shown = " x ".join(map(str, size))
    return {
        f"dilate_mask {shown}, {times}": Timing(lambda times=times: dilate_mask(mask, times), None, 2 * mask.numel())
        for times in (1, 6)
    }
