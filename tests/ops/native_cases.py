"""The cases of every operator with a native kernel, found by its registration, and what is asked of them."""

import importlib

import torch
from torch import Tensor

from perception.ops import registration
from tests.ops.case import Case, Sizes

KERNELS = registration.kernels()
_MODULES = [
    importlib.import_module(f"tests.ops.cases.{operator}")
    for operator in sorted({kernel.operator for kernel in KERNELS.values()})
]
CASES = {name: make for module in _MODULES for name, make in module.CASES.items()}


def _marked(mark: str) -> frozenset[str]:
    return frozenset(name for module in _MODULES if getattr(module, mark, False) for name in module.CASES)


# In whose CUDA kernels threads meet: each of them is one of the host's where these are compiled for it.
THREADED = _marked("THREADED")
RAGGED = _marked("RAGGED")  # which return a list, whose length depends on the content of the inputs
DIFFERENTIABLE = tuple(name for name, make in CASES.items() if make(Sizes("single"), torch.float64).differentiable)
WITH_HALF = tuple(name for name, kernel in KERNELS.items() if torch.float16 in kernel.types)


def outputs(case: Case, inputs=None) -> list[Tensor]:
    """What the function returns, as a list."""
    result = case.function(*(case.inputs if inputs is None else inputs))
    return [result] if isinstance(result, Tensor) else list(result)


def gradients(case: Case) -> list[Tensor]:
    """Gradients of a weighted sum of all floating-point outputs by all differentiable inputs."""
    leaves = [x.detach().clone().requires_grad_() for x in case.inputs[: case.differentiable]]
    results = outputs(case, (*leaves, *case.inputs[case.differentiable :]))
    # Numbers that every type holds.
    pulls = [torch.linspace(-1, 1, x.numel(), device=x.device).bfloat16().to(x.dtype).view_as(x) for x in results]
    return list(torch.autograd.grad(results, leaves, pulls))
