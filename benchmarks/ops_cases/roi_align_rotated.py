import torch
from torch import Tensor

from ops_cases import Timing, boxes, torchvision, upright, with_backward
from perception.ops.roi_align_rotated import roi_align_rotated


def timings(large: bool, device: str) -> dict[str, Timing]:
    regions = 2000 if large else 500
    features = torch.randn(1, 256, 128, 128, device=device)
    rois = torch.cat([torch.zeros(regions, 1), boxes(regions)], 1).to(device)
    aligned = torch.cat([rois[:, :1], upright(rois[:, 1:])], 1)

    def pool(x: Tensor) -> Tensor:
        return roi_align_rotated(x, rois, (7, 7), 0.125, 2)

    def pool_upright(x: Tensor) -> Tensor:
        return torchvision.ops.roi_align(x, aligned, (7, 7), 0.125, 2, True)

    name, pooled = f"roi_align_rotated {regions} of 256 x 7 x 7", 4 * regions * 256 * 49
    moved, operations = pooled + 4 * features.numel(), 2 * 16 * pooled / 4
    peers = [lambda: pool_upright(features), with_backward(pool_upright, features)] if torchvision else [None, None]
    return {
        name: Timing(lambda: pool(features), peers[0], moved, operations),
        f"{name}, forward and backward": Timing(with_backward(pool, features), peers[1], 2 * moved, 2 * operations),
    }
