"""Numbers by formula, for weights and inputs that need no file."""

import torch
from torch import Tensor


def wave(shape: tuple[int, ...], phase: float, scale: float = 1.0) -> Tensor:
    """A sine whose frequency rises, row by row; float32."""
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (scale * (index * 0.37 + index * index * 1e-4 + phase).sin()).float().view(tuple(shape))


def filled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by the place of their key in the alphabet: 0.2 times a wave; factors of norms and variances, around 1."""
    result = {}
    for place, key in enumerate(sorted(state)):
        value = state[key]
        if key.endswith(("num_batches_tracked", "code_weights")) or "logit_scale" in key:
            result[key] = value
            continue
        found = wave(tuple(value.shape), place, 0.2)
        of_norm = any(part in key for part in ("norm", ".bn", "running_var", ".1.weight"))
        if value.dim() == 1 and of_norm and key.endswith(("weight", "var")):
            found = found + 1
        result[key] = found + 3 if key.endswith("gem.p") else found
    return result
