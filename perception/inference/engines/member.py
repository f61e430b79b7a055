"""An actor of a cluster: a worker in a thread, whose groups of sources come and whose events go by calls.

A call hands over new groups, says how many events have been dealt with, and takes those that have happened since. So
one call at a time is under way, nothing is polled, and a loop that keeps states goes on only when the lines that they
build on are in the journal.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from perception.inference.scan import Source

# Seconds that a call waits for an event, and that it then waits for more of them.
_PATIENCE, _LINGER = 0.5, 0.05
# Events that may wait to be taken.
_UNTAKEN = 5000


@dataclass(frozen=True)
class Shard:
    """A group of sources to run, with the lines of those that are done."""

    number: int
    sources: Sequence[Source]
    records: dict[str, Any]


@dataclass(frozen=True)
class Ran:
    """What became of the source at `place` of a shard; the fields are those of an outcome."""

    shard: int
    place: int
    record: Any
    reason: str | None = None


@dataclass(frozen=True)
class Finished:
    """Nothing more comes of a shard."""

    shard: int


@dataclass(frozen=True)
class Told:
    """A call of a listener."""

    method: str
    arguments: tuple[str, ...]


Event = Ran | Finished | Told


class Worker(Protocol):
    """What an actor does. `remembers`: it goes on after an event only when that has been dealt with."""

    remembers: bool

    def events(self, shards: Iterator[Shard], tell: Callable[[Event], None]) -> Iterator[Event]:
        """Runs shards, which are asked for as they are needed, and says so.

        Args:
            shards: end when there are none at the moment.
            tell: takes other events, in any thread.
        """


class Member:
    """The actor.

    Args:
        make: makes the worker of what is shared.
        shared: what all actors get alike, and what is large.
    """

    def __init__(self, make: Callable[[Any], Worker], shared: Any) -> None:
        self._make, self._shared = make, shared
        self._inbox: queue.Queue[Shard] = queue.Queue()
        self._events: list[Event] = []
        self._failure: BaseException | None = None
        self._acknowledged, self._put, self._idle = 0, 0, False
        self._progress = threading.Condition()

    def start(self) -> tuple[int, str]:
        """Builds the worker.

        Returns:
            The process's number, and the machine's name.

        Raises:
            UserError: it cannot be built.
        """
        # Reading processes, which are started afresh, would import the program of Ray's that `__main__` is.
        vars(sys.modules["__main__"]).pop("__file__", None)
        self._worker = self._make(self._shared)
        self._shared = None
        threading.Thread(target=self._run, name="worker", daemon=True).start()
        return os.getpid(), os.uname().nodename

    def exchange(self, shards: Sequence[Shard], acknowledged: int) -> list[Event]:
        """Takes shards and returns what has happened.

        Args:
            shards: to run after those before.
            acknowledged: how many of the events that were returned, since the start, have been dealt with.

        Raises:
            Exception: what ended the worker.
        """
        with self._progress:
            for shard in shards:
                self._inbox.put(shard)
                self._idle = False
            self._acknowledged = acknowledged
            self._progress.notify_all()
            if not self._progress.wait_for(lambda: self._events or self._failure, _PATIENCE):
                return []
            if not self._worker.remembers:
                self._progress.wait_for(lambda: self._idle, _LINGER)
            events, self._events = self._events, []
            self._progress.notify_all()
            if self._failure is not None and not events:
                raise self._failure
        return events

    def _run(self) -> None:
        try:
            while True:
                self._rest(self._inbox.empty())
                first = self._inbox.get()
                self._rest(False)
                for event in self._worker.events(self._waiting(first), self._tell):
                    self._tell(event)
                    if self._worker.remembers:
                        self._wait()
        except BaseException as error:
            with self._progress:
                self._failure = error
                self._progress.notify_all()

    def _rest(self, idle: bool) -> None:
        with self._progress:
            self._idle = idle
            self._progress.notify_all()

    def _waiting(self, first: Shard) -> Iterator[Shard]:
        """Shards, until there are none at the moment: what is under way is finished then, not kept waiting."""
        yield first
        while True:
            try:
                yield self._inbox.get_nowait()
            except queue.Empty:
                return

    def _tell(self, event: Event) -> None:
        with self._progress:
            self._progress.wait_for(lambda: len(self._events) < _UNTAKEN)
            self._put += 1
            self._events.append(event)
            if len(self._events) == 1:
                self._progress.notify_all()

    def _wait(self) -> None:
        """Until all events so far have been dealt with."""
        with self._progress:
            put = self._put
            self._progress.wait_for(lambda: self._acknowledged >= put)
