"""What the loops over sources share: what they are given, what they yield, and how results are written beside them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from perception.inference.pool import WorkerPool
from perception.inference.predicting import SkippedError
from perception.inference.reading import Deferred, Reader, Refused
from perception.inference.scan import Source
from perception.inference.writing import Files, Record

# Bytes of samples that may wait for being drawn and written before the model has to wait.
_UNWRITTEN_BYTES = 192 * 2**20
_WRITERS = 2


class Earlier(Protocol):
    """What earlier runs have done; `files` are those below OUT."""

    files: Files

    def has(self, source: Source) -> bool:
        """Whether a source is done."""

    def record(self, source: Source) -> Record | None:
        """The line of a source that is done."""


@dataclass(frozen=True)
class Outcome:
    """What became of a source: a line for the journal, or why there is none; with both, the reason is kept.

    All files that a line speaks of are there when a loop yields it.
    """

    source: Source
    record: Record | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Work:
    """What a loop is given.

    Attributes:
        shards: groups of sources that have nothing to do with each other, as `Loop.shards` forms them.
        earlier: what is done.
        reader, predictor: the kind's.
        write: writes the files of a result (source, sample, result) and returns its line; called from any thread.
        sequence_done: is told when the outcomes of a sequence's last source were yielded.
        note: takes a word on how far a source is.
        say: takes a sentence that the user has to read.
    """

    shards: Iterable[Sequence[Source]]
    earlier: Earlier
    reader: Reader
    predictor: Any
    write: Callable[[Source, Any, Any], Record]
    sequence_done: Callable[[str], None]
    note: Callable[[str], None]
    say: Callable[[str], None]


class Loop(ABC):
    """How the sources of a run are gone through.

    Attributes:
        remembers: it keeps states of predictors, which must not be ahead of the journal.
        window: sources that should be at hand beyond those that are under way, or the next one is waited for.
    """

    remembers: bool = False
    window: int = 1

    @abstractmethod
    def pending(self, sources: Sequence[Source], earlier: Earlier) -> int:
        """How many sources there are to run, or to run again."""

    @abstractmethod
    def shards(self, sources: Sequence[Source], earlier: Earlier) -> list[Sequence[Source]]:
        """Groups of sources, in order, that come out the same whichever of them are run, and where; those of which
        something is to be run.
        """

    @abstractmethod
    def start(self) -> None:
        """Brings up what takes time, while the model is built."""

    @abstractmethod
    def outcomes(self, work: Work) -> Iterator[Outcome]:
        """Runs what is pending of the shards, which are asked for as they are needed. Whoever iterates writes an
        outcome's line before asking for the next.

        Raises:
            UserError: the model fails on everything.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends what `start` has begun."""


class PooledLoop(Loop):
    """A loop whose sources are read by worker processes.

    Args:
        workers: how many.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: WorkerPool | None = None

    def start(self) -> None:
        self._pool = WorkerPool(self._workers)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()

    def read_all(self, reader: Reader, sources: Iterable[Source], ahead: int) -> Iterator[tuple[Source, Any | Refused]]:
        """Sources with their samples, in order, read by processes that are up to `ahead` sources ahead."""
        assert self._pool is not None, "the loop was not started"
        for source, sample in self._pool.imap(partial(_read, reader, False), sources, ahead, _died):
            if isinstance(sample, Deferred):
                sample = self._pool.alone(partial(_read, reader, True), source, _died)
            yield source, sample


class WriteQueue:
    """Results on their way to the disk: written in threads, and handed on in the order in which they came.

    Args:
        write: as in :class:`Work`.
        nbytes: how much a sample holds.
    """

    def __init__(self, write: Callable[[Source, Any, Any], Record], nbytes: Callable[[Any], int]) -> None:
        self._write, self._nbytes = write, nbytes
        self._threads = ThreadPoolExecutor(_WRITERS, "writer")
        self._waiting: deque[tuple[int, Future[Outcome]]] = deque()
        self._held = 0

    def put(self, source: Source, sample: Any, found: Any) -> None:
        """Takes a result."""
        size = self._nbytes(sample)
        self._waiting.append((size, self._threads.submit(self._outcome, source, sample, found)))
        self._held += size

    def pass_on(self, outcome: Outcome) -> None:
        """Takes an outcome that needs no writing."""
        future: Future[Outcome] = Future()
        future.set_result(outcome)
        self._waiting.append((0, future))

    def finished(self) -> Iterator[Outcome]:
        """Outcomes that are ready, or that have to be waited for because too much is waiting."""
        while self._waiting and (self._waiting[0][1].done() or self._held > _UNWRITTEN_BYTES):
            yield self._pop()

    def rest(self) -> Iterator[Outcome]:
        """All other outcomes."""
        while self._waiting:
            yield self._pop()

    def close(self) -> None:
        """Waits for the threads; what has not begun is dropped."""
        self._threads.shutdown(cancel_futures=True)

    def _pop(self) -> Outcome:
        size, future = self._waiting.popleft()
        self._held -= size
        return future.result()

    def _outcome(self, source: Source, sample: Any, found: Any) -> Outcome:
        try:
            return Outcome(source, self._write(source, sample, found))
        except SkippedError as error:
            return Outcome(source, reason=str(error))


def _read(reader: Reader, alone: bool, source: Source) -> Any | Refused | Deferred:
    try:
        return reader.read(source, alone)
    except OSError as error:  # it may have gone since the folder was scanned
        return Refused(error.strerror or str(error))


def _died(source: Source) -> Refused:
    return Refused("the process that read it died (killed for memory, or crashed by the file)")
