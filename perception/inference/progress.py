"""How far a run is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from tqdm import tqdm


class Progress:
    """Counts images.

    Args:
        total: all images of the run.
        done: how many an earlier run finished; they do not count into images/s.
        stream: where to write.
        interval: seconds between the lines in a log.
    """

    def __init__(self, total: int, done: int, stream: TextIO | None = None, interval: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._total, self._initial, self._count = total, done, done
        self._interval = interval
        self._started = self._written = time.perf_counter()
        self._bar = None
        if self._stream.isatty():
            self._bar = tqdm(total=total, initial=done, unit="image", file=self._stream, dynamic_ncols=True)

    def add(self, count: int = 1) -> None:
        """Notes that `count` more images are done or skipped."""
        self._count += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.perf_counter()
        if now - self._written >= self._interval:
            self._written = now
            rate = (self._count - self._initial) / (now - self._started)
            print(f"{self._count}/{self._total} images, {rate:.1f} images/s", file=self._stream, flush=True)

    def note(self, text: str) -> None:
        """Says where in an image the run is."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(0)
            return
        now = time.perf_counter()
        if now - self._written >= self._interval:
            self._written = now
            print(f"{self._count}/{self._total} images; {text}", file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
