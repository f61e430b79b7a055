"""The core of each system, small and at the sizes of its recipe: what is compared between the CPU and a GPU, and timed.

One module per system, with the system's name: its ``core(large)`` makes it. Cores are plain torch, so that a machine
without MMEngine can run them.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Core(NamedTuple):
    """A module with its inputs, and a loss of what it makes of them."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    loss: Callable[..., Tensor]  # of the module and the inputs


def cores(large: bool) -> Iterator[tuple[str, Core]]:
    """The core of every system, of the same weights and inputs each time."""
    for found in pkgutil.iter_modules(__path__):
        torch.manual_seed(0)
        yield found.name, importlib.import_module(f"{__name__}.{found.name}").core(large)


def gradients(core: Core, device: str) -> list[Tensor]:
    """The loss, then the gradients of inputs and weights, on a device."""
    module = core.module.to(device)
    inputs = [x.to(device).requires_grad_(x.is_floating_point()) for x in (x.detach().clone() for x in core.inputs)]
    loss = core.loss(module, *inputs)
    wanted = [x for x in (*inputs, *module.parameters()) if x.requires_grad]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [loss.detach(), *(grad for grad in found if grad is not None)]
