"""Classes of a model and names in a data set, which belong together by name and by nothing else."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SHOWN = 30


@dataclass(frozen=True)
class Difference:
    """What tells two lists of names apart.

    Attributes:
        missing: classes that the data set does not have.
        further: names of the data set that are no class.
    """

    missing: tuple[str, ...]
    further: tuple[str, ...]

    @classmethod
    def between(cls, classes: Sequence[str], names: Sequence[str]) -> Difference:
        """The difference, each side in its own order."""
        return cls(
            tuple(name for name in classes if name not in set(names)),
            tuple(name for name in names if name not in set(classes)),
        )

    def __bool__(self) -> bool:
        return bool(self.missing or self.further)

    def text(self, names: Sequence[str] = ()) -> str:
        """Both sides in words, with what was probably meant: one of ``further``, or of ``names``."""
        parts = []
        if self.missing:
            parts.append(f"it has no {_with_near_misses(self.missing, [*self.further, *names])}")
        meant = {near_miss(name, self.further) for name in self.missing}
        others = [name for name in self.further if name not in meant]
        if others:
            parts.append(f"its {_with_near_misses(others, self.missing)} {_are(others)} no class")
        return ", and ".join(parts)


def near_miss(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `name` probably stands for: the same but for case, spaces and such, or a slip of the pen.

    Example:
        >>> near_miss("trafic_light", ["traffic light", "train", "truck"])
        'traffic light'
    """
    plain = {_plain(candidate): candidate for candidate in candidates}
    found = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.65)
    return plain[found[0]] if found else None


def listed(names: Iterable[object]) -> str:
    """Names in a sentence; of many, the first."""
    names = [repr(name) if not isinstance(name, str) or name != name.strip() or not name else name for name in names]
    rest = f" ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest if names else "none"


def _with_near_misses(names: Sequence[str], others: Sequence[str]) -> str:
    said = []
    for name in names[:SHOWN]:
        near = near_miss(name, others)
        said.append(f"{name!r} ({near!r}?)" if near else repr(name))
    return ", ".join(said) + (f" ... ({len(names)} in all)" if len(names) > SHOWN else "")


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _plain(name: object) -> str:
    """Letters and digits; a file may name a class by a number, which is reported where the file is looked at."""
    return "".join(character for character in str(name).casefold() if character.isalnum()) or str(name)
