"""perception: published dense-vision and 3D-perception systems on a current stack.

Importing this package makes ``import mmcv.ops`` work where mmcv has no compiled operators (see
:mod:`perception.ops.mmcv_ext`), and mmdet's panoptic segmentation without ``panopticapi`` (see
:mod:`perception.evaluation.panoptic_quality`). Where it is installed, both work in processes that do not
import it, too (docs/operators.md).
"""

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

from . import debug_prints

__version__ = "0.1.0"


# Modules that packages of this stack import but no package index has, and what answers for them.
_STAND_INS = {
    "mmcv._ext": "perception.ops.mmcv_ext",
    "panopticapi": "perception.evaluation.panoptic_quality",
    "panopticapi.evaluation": "perception.evaluation.panoptic_quality",
    "panopticapi.utils": "perception.evaluation.panoptic_quality",
}


class _StandInFinder:
    """Answers for the names in ``_STAND_INS`` when no other finder did."""

    def find_spec(self, name, path=None, target=None) -> ModuleSpec | None:
        if name not in _STAND_INS:
            return None
        return ModuleSpec(name, self, origin=_STAND_INS[name], is_package=name == "panopticapi")

    def create_module(self, spec: ModuleSpec) -> None:
        """The default one."""

    def exec_module(self, module: ModuleType) -> None:
        provided = importlib.import_module(_STAND_INS[module.__name__])
        module.__doc__ = provided.__doc__
        if hasattr(provided, "__getattr__"):
            module.__getattr__ = provided.__getattr__
        module.__dict__.update({name: value for name, value in vars(provided).items() if not name.startswith("_")})


def find_stand_in(name: str) -> ModuleSpec | None:
    """How to make the module ``name`` of another package, if perception has a stand-in for it."""
    return _StandInFinder().find_spec(name)


# Last, so that an installed module is found first; by name, so that reloading the package adds no second one.
if not any(type(finder).__name__ == _StandInFinder.__name__ for finder in sys.meta_path):
    sys.meta_path.append(_StandInFinder())

debug_prints.install()
