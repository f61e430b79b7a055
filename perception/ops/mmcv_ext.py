"""Stand-in for ``mmcv._ext``, the compiled half of mmcv that its PyPI package lacks.

:mod:`perception` makes ``import mmcv._ext`` find the names of this module where no compiled one exists. Each function
has the name, the arguments and the in-place results that ``mmcv.ops`` expects, and computes with the operators of
:mod:`perception.ops`, whose docstrings say what they compute. Any other name is a function that raises
``NotImplementedError``, so that importing ``mmcv.ops`` never fails.
"""

from collections.abc import Callable
from typing import NoReturn

from perception.ops._mmcv.boxes import *  # noqa: F403
from perception.ops._mmcv.convolutions import *  # noqa: F403
from perception.ops._mmcv.losses import *  # noqa: F403
from perception.ops._mmcv.maps import *  # noqa: F403
from perception.ops._mmcv.norms import *  # noqa: F403
from perception.ops._mmcv.points import *  # noqa: F403
from perception.ops._mmcv.regions import *  # noqa: F403


def get_compiler_version() -> str:
    """Asked for by mmengine's listing of the environment."""
    return "none: operators of perception.ops"


def get_compiling_cuda_version() -> str:
    """Asked for by mmengine's listing of the environment."""
    return "not available"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def missing(*args, **kwargs) -> NoReturn:
        raise NotImplementedError(
            f"mmcv's operator {name!r} is not provided by perception.ops. Install an mmcv with compiled operators "
            "(it is used when present), or open an issue that names the operator and the model which needs it."
        )

    missing.__name__ = missing.__qualname__ = name
    return missing
