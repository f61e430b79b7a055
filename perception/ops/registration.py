"""How an operator's module says what torch must know of its native kernel.

The C++ and CUDA sources only implement. The schema, the types, the shapes of the results and the derivative stand in
the operator's own module, below its reference::

    @native_kernel("double(Tensor x) -> Tensor", types=FULL)
    def _shape(x):
        return torch.empty_like(x)

and its public function then asks ``backend.native("double", x)`` and calls ``torch.ops.perception.double(x)``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import torch

import perception.ops

FULL = frozenset({torch.float32, torch.float64})
FULL_AND_HALF = FULL | {torch.float16, torch.bfloat16}


@dataclass(frozen=True)
class Kernel:
    """A native kernel, as its operator's module describes it; see :func:`native_kernel`."""

    name: str
    schema: str
    operator: str  # the module of perception.ops
    types: frozenset[torch.dtype]
    mixed_types: bool
    fake: Callable
    setup_context: Callable | None
    backward: Callable | None

    def define_in(self, namespace: str) -> None:
        """Make it ``torch.ops.<namespace>.<name>``."""
        qualified = f"{namespace}::{self.name}"
        torch.library.define(qualified, self.schema.removeprefix(self.name))
        torch.library.register_fake(qualified, self.fake)
        if self.backward is not None:
            torch.library.register_autograd(qualified, self.backward, setup_context=self.setup_context)


_kernels: dict[str, Kernel] = {}
_namespaces: list[str] = []
_libraries: dict[str, str] = {}


def native_kernel(
    schema: str,
    *,
    types: frozenset[torch.dtype] = frozenset(),
    mixed_types: bool = False,
    setup_context: Callable | None = None,
    backward: Callable | None = None,
) -> Callable[[Callable], Callable]:
    """Registers a kernel; decorates the function that makes its results, of the right shape and type and no content.

    Args:
        schema: ``"name(Tensor x, ...) -> Tensor"``.
        types: of the floating-point inputs with which an operator may choose it; none for what only a derivative calls.
        mixed_types: whether the kernel brings inputs of several types to one.
        setup_context: what ``backward`` needs to remember, as in ``torch.library.register_autograd``.
        backward: the derivative, in terms of ``torch.ops.perception``; ``None`` where there is none.

    Raises:
        ValueError: if the name is taken.
    """
    name = schema.partition("(")[0]

    def register(fake: Callable) -> Callable:
        operator = _operator_of(fake)
        if name in _kernels:
            raise ValueError(f"two kernels are named {name!r}: {_kernels[name].operator}'s and {operator}'s")
        kernel = Kernel(name, schema, operator, types, mixed_types, fake, setup_context, backward)
        _kernels[name] = kernel
        for namespace in _namespaces:
            kernel.define_in(namespace)
        return fake

    return register


def no_second_derivative(name: str) -> Callable:
    """The ``backward`` of a kernel that is a derivative itself, where nobody has needed the second one."""

    def refuse(ctx, *grads):
        raise NotImplementedError(f"{name} has no second derivative in its native form: set PERCEPTION_OPS=reference")

    return refuse


def define_in(namespace: str) -> None:
    """Make all kernels, those of modules not yet imported too, operators of a namespace.

    A library that implements them in it must have been loaded. (The tests load the CUDA kernels, compiled for the host,
    under another one than ``perception``.)
    """
    _namespaces.append(namespace)
    for kernel in _kernels.values():
        kernel.define_in(namespace)


def kernels_of(library: str) -> Callable[[Callable], Callable]:
    """Decorates the function of an operator that runs the kernels of another library: says so in reports."""

    def register(function: Callable) -> Callable:
        _libraries[_operator_of(function)] = library
        return function

    return register


def kernel(name: str) -> Kernel:
    """The kernel of a name, whose operator's module has been imported."""
    return _kernels[name]


def library_of(operator: str) -> str | None:
    """The other library whose kernels an operator runs, if any."""
    return _libraries.get(operator)


def operators() -> list[str]:
    """All operators, their modules imported: the modules of :mod:`perception.ops` with an ``__all__``.

    Where torchvision is missing, those that are made of its operators are left out.
    """
    found = []
    for module in pkgutil.iter_modules(perception.ops.__path__):
        if module.name.startswith("_"):
            continue
        try:
            imported = importlib.import_module(f"perception.ops.{module.name}")
        except ModuleNotFoundError as error:
            if error.name != "torchvision":
                raise
            continue
        if hasattr(imported, "__all__"):
            found.append(module.name)
    return found


def kernels() -> dict[str, Kernel]:
    """All kernels that operators may choose, by name."""
    operators()
    return {name: kernel for name, kernel in sorted(_kernels.items()) if kernel.types}


def _operator_of(function: Callable) -> str:
    return function.__module__.rpartition(".")[2]
