"""What a look at data found: faults, remarks and statistics, as one readable text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from perception.engine.errors import UserError

NAMED = 5
"""So many examples are named of each fault."""


def some(names: Iterable[object], total: int | None = None) -> str:
    """The first few of many names, for a sentence."""
    names = [str(name) for _, name in zip(range(NAMED + 1), names)]
    more = len(names) > NAMED or (total is not None and total > len(names))
    return ", ".join(names[:NAMED]) + (", ..." if more else "")


@dataclass(frozen=True)
class Finding:
    """One fault: what is wrong with how many of what, which (the first few), and what to do."""

    what: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.what}; {self.advice}" if self.advice else self.what


@dataclass
class Findings:
    """Faults of one data set: errors, which forbid to train, and warnings."""

    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def error(self, what: str, advice: str = "") -> None:
        self.errors.append(Finding(what, advice))

    def warn(self, what: str, advice: str = "") -> None:
        self.warnings.append(Finding(what, advice))

    def add(self, other: Findings) -> None:
        """Takes over the findings of another list."""
        self.errors += other.errors
        self.warnings += other.warnings

    def to_json(self) -> dict:
        return {kind: [[found.what, found.advice] for found in getattr(self, kind)] for kind in ("errors", "warnings")}

    @classmethod
    def from_json(cls, content: dict) -> Findings:
        return cls(*([Finding(*entry) for entry in content[kind]] for kind in ("errors", "warnings")))


@dataclass
class Section:
    """One data set, or what several have to do with each other.

    Attributes:
        title: what the section is about, such as ``train``.
        facts: statistics, a line each.
    """

    title: str
    findings: Findings = field(default_factory=Findings)
    facts: list[str] = field(default_factory=list)


@dataclass
class Report:
    """All that a look at the data of a config found."""

    sections: list[Section] = field(default_factory=list)

    @property
    def errors(self) -> list[str]:
        return [f"{part.title}: {found}" for part in self.sections for found in part.findings.errors]

    @property
    def warnings(self) -> list[str]:
        return [f"{part.title}: {found}" for part in self.sections for found in part.findings.warnings]

    def text(self) -> str:
        """Everything, by section: statistics, then faults with advice below."""
        lines = []
        for part in self.sections:
            lines.append(part.title)
            lines += [f"  {fact}" for fact in part.facts]
            for level, found in (("error", part.findings.errors), ("warning", part.findings.warnings)):
                for entry in found:
                    lines.append(f"  {level}: {entry.what}")
                    if entry.advice:
                        lines.append(f"    {entry.advice}")
        lines.append(f"{_count(self.errors, 'error')}, {_count(self.warnings, 'warning')}")
        return "\n".join(lines)

    def raise_errors(self) -> None:
        """
        Raises:
            UserError: there are errors; one is a sentence, more are a list.
        """
        if len(self.errors) == 1:
            raise UserError(self.errors[0])
        if self.errors:
            listed = "".join(f"\n  {number}. {text}" for number, text in enumerate(self.errors, start=1))
            raise UserError(f"the data cannot be used as they are:{listed}")


def _count(found: list, name: str) -> str:
    return f"{len(found)} {name}{'' if len(found) == 1 else 's'}"
