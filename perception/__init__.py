"""perception: published dense-vision and 3D-perception systems on a current stack.

Importing this package makes ``import mmcv.ops`` work where mmcv has no compiled operators: see
:mod:`perception.ops.mmcv_ext`.
"""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__version__ = "0.1.0"


class _MmcvExtFinder(MetaPathFinder, Loader):
    """Answers for ``mmcv._ext`` when no other finder did, with the contents of ``perception.ops.mmcv_ext``."""

    def find_spec(self, name, path=None, target=None) -> ModuleSpec | None:
        return ModuleSpec(name, self, origin="perception.ops.mmcv_ext") if name == "mmcv._ext" else None

    def exec_module(self, module: ModuleType) -> None:
        provided = importlib.import_module("perception.ops.mmcv_ext")
        module.__doc__ = provided.__doc__
        module.__getattr__ = provided.__getattr__
        module.__dict__.update({name: value for name, value in vars(provided).items() if not name.startswith("_")})


# Last, so that a compiled extension is found first; by name, so that reloading the package adds no second one.
if not any(type(finder).__name__ == _MmcvExtFinder.__name__ for finder in sys.meta_path):
    sys.meta_path.append(_MmcvExtFinder())
