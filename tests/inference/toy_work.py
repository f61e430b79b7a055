"""How long toy models take, and how a run of them is killed half-way, however slow or busy the machine is."""

import os
import time
from pathlib import Path

_VARIABLE = "TOY_WORKS_UNTIL"
_LONGEST = 900  # seconds


def work(seconds: float) -> None:
    """Takes some seconds; in a process that `until` speaks of, there is no end once the journal is that long."""
    time.sleep(seconds)
    lines, _, journal = os.environ.get(_VARIABLE, "").partition(" ")
    over = time.monotonic() + _LONGEST  # whoever was to kill the process may have died
    while journal and lines_of(Path(journal)) >= int(lines) and time.monotonic() < over:
        time.sleep(0.05)


def until(journal: Path, lines: int) -> dict[str, str]:
    """What a process needs in its environment to wait for its end when its journal has so many lines."""
    return {_VARIABLE: f"{lines} {journal}"}


def lines_of(journal: Path) -> int:
    """How many whole lines a file has; a missing one has none."""
    try:
        return journal.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0
