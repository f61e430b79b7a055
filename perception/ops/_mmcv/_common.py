"""What the functions called by ``mmcv.ops`` have in common."""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def kernel(function: Callable) -> Callable:
    """Runs a function as compiled code would run: outside the graph, and in the precision of its inputs."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        device = next((a.device.type for a in args if isinstance(a, Tensor)), "cpu")
        with torch.no_grad(), torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return call


def vjp(function: Callable[..., Tensor], inputs: Sequence[Tensor], grad_output: Tensor) -> tuple[Tensor, ...]:
    """Gradients by all inputs of sum(function(*inputs) * grad_output)."""
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in inputs]
        output = function(*leaves)
        return torch.autograd.grad(output, leaves, grad_output.to(output.dtype))
