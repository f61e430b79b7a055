"""How far a run is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from tqdm import tqdm


class Progress:
    """Counts sources.

    Args:
        total: all sources of the run.
        done: how many an earlier run finished; they do not count into the rate.
        unit, units: what one of them, and several, are called.
        stream: where to write.
        interval: seconds between the lines in a log.
    """

    def __init__(
        self, total: int, done: int, unit: str, units: str, stream: TextIO | None = None, interval: float = 10.0
    ) -> None:
        self._stream = stream or sys.stderr
        self._total, self._initial, self._count = total, done, done
        self._interval, self._units = interval, units
        self._started = self._written = time.perf_counter()
        self._bar = None
        if self._stream.isatty():
            self._bar = tqdm(total=total, initial=done, unit=unit, file=self._stream, dynamic_ncols=True)

    def add(self, count: int = 1) -> None:
        """Notes that `count` more are done or skipped."""
        self._count += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.perf_counter()
        if now - self._written >= self._interval:
            self._written = now
            rate = (self._count - self._initial) / (now - self._started)
            print(
                f"{self._count}/{self._total} {self._units}, {rate:.1f} {self._units}/s", file=self._stream, flush=True
            )

    def note(self, text: str) -> None:
        """Says where in a source the run is."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(0)
            return
        now = time.perf_counter()
        if now - self._written >= self._interval:
            self._written = now
            self._print(f"{self._units}; {text}")

    def say(self, text: str) -> None:
        """Writes a sentence that has to be read, above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _print(self, text: str) -> None:
        print(f"{self._count}/{self._total} {text}", file=self._stream, flush=True)
