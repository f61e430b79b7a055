import torch

from ops_cases import Timing
from perception.ops.masked_adam import masked_adam_


def timings(large: bool, device: str) -> dict[str, Timing]:
    side, channels = (160 if large else 96), 12
    tensors = [
        torch.randn(1, channels, side, side, side, device=device).contiguous(memory_format=torch.channels_last_3d)
        for _ in range(4)
    ]
    tensors[1][:, :, : side * 9 // 10] = 0
    tensors[3].abs_()
    options = dict(step_size=1e-3, beta1=0.9, beta2=0.99, eps=1e-8)
    number = tensors[0].numel()
    return {
        f"masked_adam_ {channels} x {side}^3, a tenth touched": Timing(
            lambda: masked_adam_(*tensors, skip_zero_grad=True, **options), None, (4 + 2.4) * number
        ),
        f"masked_adam_ {channels} x {side}^3, all": Timing(
            lambda: masked_adam_(*tensors, **options), None, 28 * number
        ),
    }
