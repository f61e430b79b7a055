"""Mixed precision where MMEngine's own wrapper does not go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):
    """Runs the forward pass under ``torch.autocast`` in bfloat16, on any device that has it, the CPU included.

    bfloat16 has float32's range, so no loss scaling is needed. MMEngine's ``AmpOptimWrapper`` refuses the CPU.
    """

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        """Autocast around the forward pass, inside the base class's gradient-synchronisation context."""
        with super().optim_context(model), torch.autocast(get_device(), dtype=torch.bfloat16):
            yield
