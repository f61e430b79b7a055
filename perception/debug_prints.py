"""Keeps MMEngine from printing debug messages.

``print_log(..., level=DEBUG)`` without a logger prints, whatever the level: "Could not import OneDL", a company's data
sets that nobody here uses, once or twice for every command that imports mmdet.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_LOGGER_MODULE = "mmengine.logging.logger"


def install() -> None:
    """Drops them from now on, without importing MMEngine. Calling it again changes nothing."""
    if _LOGGER_MODULE in sys.modules:
        _mend(sys.modules[_LOGGER_MODULE])
        sys.modules["mmengine.logging"].print_log = sys.modules[_LOGGER_MODULE].print_log
    elif not any(type(finder).__name__ == _LoggerFinder.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, _LoggerFinder())


class _LoggerFinder(MetaPathFinder):
    """Finds MMEngine's logger where it is, and has it mended when it has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _LOGGER_MODULE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_mend(module: ModuleType) -> None:
                execute(module)
                _mend(module)

            spec.loader.exec_module = execute_and_mend
        return spec


def _mend(module: ModuleType) -> None:
    print_log = module.print_log
    if hasattr(print_log, "__wrapped__"):
        return

    @wraps(print_log)
    def print_unless_debug(msg, logger=None, level=logging.INFO) -> None:
        if logger is not None or level > logging.DEBUG:
            print_log(msg, logger, level)

    module.print_log = print_unless_debug
