"""Worker processes that may die: what a dying one was working on is found out and reported, and the rest goes on.

Results travel through pipes. Shared memory would save a copy, but its file system is 64 MB small in an ordinary
container, and overrunning it kills the process that reads.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerPool:
    """A process pool that outlives the death of its workers.

    The processes are started afresh (not forked), because forking a process whose threads hold locks can hang the
    child.

    Args:
        workers: how many processes work at the same time.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = _start(workers)
        self._lone: ProcessPoolExecutor | None = None
        # Brings the processes up while the caller prepares other things.
        self._ready = [self._pool.submit(os.getpid) for _ in range(workers)]

    def imap(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        ahead: int,
        on_death: Callable[[Item], Result],
    ) -> Iterator[tuple[Item, Result]]:
        """Yields `(item, function(item))` in the order of `items`, computing up to `ahead` items in advance.

        Args:
            function: a module-level function; it must not raise.
            items: the arguments.
            ahead: how many results may be waiting or under way.
            on_death: makes the result of an item that kills its process, even when it runs alone.

        Raises:
            RuntimeError: worker processes cannot be started at all.
        """
        self._check_ready()
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        items = iter(items)
        while True:
            while len(waiting) < ahead:
                try:
                    item = next(items)
                except StopIteration:
                    break
                waiting.append((item, self._submit(function, item)))
            if not waiting:
                return
            item, future = waiting.popleft()
            try:
                result = future.result()
            except BrokenProcessPool:
                # One death fails everything that was under way, and nothing says whose it was: run those one by one.
                result = self._settle(function, item, on_death)
                waiting = deque(self._settled(function, entry, on_death) for entry in waiting)
            yield item, result

    def alone(self, function: Callable[[Item], Result], item: Item, on_death: Callable[[Item], Result]) -> Result:
        """Computes one item in a process that does nothing else at the time."""
        return self._settle(function, item, on_death)

    def close(self) -> None:
        """Ends the processes; what they are doing is finished, what waits for them is dropped."""
        for pool in (self._pool, self._lone):
            if pool is not None:
                pool.shutdown(cancel_futures=True)
        self._lone = None

    def _check_ready(self) -> None:
        try:
            for future in self._ready:
                future.result()
        except BrokenProcessPool as error:
            raise RuntimeError("worker processes die at their start; is there enough memory for them?") from error
        self._ready = []

    def _submit(self, function: Callable[[Item], Result], item: Item) -> Future[Result]:
        try:
            return self._pool.submit(function, item)
        except BrokenProcessPool:
            self._pool = _start(self._workers)
            return self._pool.submit(function, item)

    def _settled(
        self,
        function: Callable[[Item], Result],
        entry: tuple[Item, Future[Result]],
        on_death: Callable[[Item], Result],
    ) -> tuple[Item, Future[Result]]:
        """An entry whose future holds a result: its own if it has one, else that of a run alone."""
        item, future = entry
        try:
            future.result()
        except BrokenProcessPool:
            future = Future()
            future.set_result(self._settle(function, item, on_death))
        return item, future

    def _settle(self, function: Callable[[Item], Result], item: Item, on_death: Callable[[Item], Result]) -> Result:
        if self._lone is None:
            self._lone = _start(1)
        try:
            return self._lone.submit(function, item).result()
        except BrokenProcessPool:
            self._lone.shutdown()
            self._lone = None
            return on_death(item)


def _start(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """Makes a worker leave Ctrl-C to its parent and end with it, even when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # When memory runs out, Linux is to take a worker, which can be replaced, and not the process with the model.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
