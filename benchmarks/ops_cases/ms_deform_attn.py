import torch
from torch import Tensor

from ops_cases import Timing, with_backward
from perception.ops.ms_deform_attn import multi_scale_deformable_attention


def timings(large: bool, device: str) -> dict[str, Timing]:
    shapes = [(100, 167), (50, 84), (25, 42), (13, 21)] if large else [(64, 64), (32, 32), (16, 16), (8, 8)]
    images, tokens = (2 if large else 1), sum(height * width for height, width in shapes)
    value = torch.randn(images, tokens, 8, 32, device=device)
    places = torch.rand(images, tokens, 8, 4, 4, 2, device=device)
    weights = torch.rand(images, tokens, 8, 4, 4, device=device).softmax(-1)

    def attend(v: Tensor, p: Tensor, w: Tensor) -> Tensor:
        return multi_scale_deformable_attention(v, shapes, p, w)

    name = f"ms_deform_attn {images} x {tokens} queries, 8 x 32, 4 x 4"
    moved, operations = 4 * images * tokens * 8 * (2 * 32 + 16 * 3), 2.0 * 4 * 16 * 32 * images * tokens * 8
    return {
        name: Timing(lambda: attend(value, places, weights), None, moved, operations),
        f"{name}, forward and backward": Timing(
            with_backward(attend, value, places, weights), None, 3 * moved, 3 * operations
        ),
    }
