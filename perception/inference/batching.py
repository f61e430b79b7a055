"""Samples in, batches out; who shares a batch depends on the samples alone, never on timing."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from perception.inference.predicting import Prepared
from perception.inference.reading import Refused
from perception.inference.scan import Source

T = TypeVar("T")

WAITING_BYTES = 384 * 2**20
"""Bytes of samples that may wait for their batch to fill up; when there are more, batches go out part full."""


@dataclass(frozen=True)
class Item:
    """A source on its way to the model, as its sample and prepared for it."""

    source: Source
    sample: Any
    prepared: Prepared


def batches(
    chunks: Iterable[Iterable[tuple[Source, Any | Refused]]],
    prepare: Callable[[Source, Any], Prepared],
    nbytes: Callable[[Any], int],
    batch_size: int,
    skip: Callable[[Source, str], None],
) -> Iterator[list[Item]]:
    """Groups samples of one prepared shape.

    A batch never reaches over the end of a chunk, so that a run which is taken up again at any chunk forms the same
    batches.

    Args:
        chunks: sources with their samples, in their final order.
        prepare: the test pipeline.
        nbytes: how much a sample holds.
        batch_size: how many samples a full batch has.
        skip: is told of sources that were not read, or that the pipeline fails on, with the reason.
    """
    for chunk in chunks:
        waiting: dict[Any, list[Item]] = {}
        held = 0
        for source, sample in chunk:
            if isinstance(sample, Refused):
                skip(source, sample.reason)
                continue
            try:
                prepared = prepare(source, sample)
            except Exception as error:  # pipelines fail in their own ways on odd sizes; the user gets the reason
                skip(source, f"the test pipeline fails on it: {type(error).__name__}: {error}")
                continue
            group = waiting.setdefault(prepared.shape, [])
            group.append(Item(source, sample, prepared))
            held += nbytes(sample)
            if len(group) == batch_size:
                del waiting[prepared.shape]
                held -= sum(nbytes(item.sample) for item in group)
                yield group
            elif held > WAITING_BYTES:
                yield from waiting.values()
                waiting, held = {}, 0
        yield from waiting.values()


def prefetch(items: Iterable[T], depth: int) -> Iterator[T]:
    """Iterates over `items` in a thread of its own, up to `depth` items ahead of the consumer.

    An exception in the thread is raised in the consumer. Closing the iterator waits for the thread, which ends after
    its current item.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: tuple[str, Any]) -> bool:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(("item", item)):
                    return
        except BaseException as error:
            put(("error", error))
        else:
            put(("end", None))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stop.set()
        thread.join()
