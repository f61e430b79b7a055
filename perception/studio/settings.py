"""Settings of runs that earlier versions of the program wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any


class OlderSettings:
    """Mixin of settings (a dataclass) whose options may be more than a run's config.yml knows: those that came later
    have their defaults.

    YAML and ``copy`` make objects without calling ``__init__``.
    """

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for option in fields(self):  # pyrefly: ignore[bad-argument-type]
            if option.name not in state and option.default_factory is not MISSING:
                setattr(self, option.name, option.default_factory())
        self.__dict__.update(state)
