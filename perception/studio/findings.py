"""What a look at a scene brings to light, collected so that all of it is said at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from perception.studio.errors import SceneError

SHOWN = 5  # faults of different kinds that one message spells out


@dataclass
class Findings:
    """Errors, with which no run starts, and warnings; each is one sentence without a full stop."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def error(self, *same_kind: str) -> None:
        """Note an error that several files may have: the first is spelt out, the others are counted."""
        self._add(self.errors, same_kind)

    def warn(self, *same_kind: str) -> None:
        """Note a warning, in the same way."""
        self._add(self.warnings, same_kind)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Turns a :class:`SceneError` raised inside into an error of this list."""
        try:
            yield
        except SceneError as error:
            self.error(str(error))

    def raise_errors(self) -> None:
        """Raise if there is an error.

        Raises:
            SceneError: its message names all of them.
        """
        if self.errors:
            raise SceneError(one_message(self.errors))

    @staticmethod
    def _add(found: list[str], same_kind: Sequence[str]) -> None:
        if same_kind and (sentence := counted(same_kind)) not in found:
            found.append(sentence)


def counted(same_kind: Sequence[str]) -> str:
    """The first of several sentences about the same kind of fault, and how many more there are."""
    more = len(same_kind) - 1
    return same_kind[0] + (f" (and {more} more of this kind)" if more else "")


def one_message(errors: Sequence[str]) -> str:
    """One line that spells out several errors."""
    if len(errors) == 1:
        return errors[0]
    listed = "; ".join(f"({number}) {error}" for number, error in enumerate(errors[:SHOWN], start=1))
    more = f"; and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
    return f"the scene has {len(errors)} faults: {listed}{more}"
