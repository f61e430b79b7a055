"""Images in, batches out; who shares a batch depends on the images alone, never on timing."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from perception.inference.decoding import Decoded, Refused
from perception.inference.scan import Source

T = TypeVar("T")

WAITING_BYTES = 384 * 2**20
"""Decoded pixels that may wait for their batch to fill up; when there are more, batches go out part full."""


@dataclass(frozen=True)
class Image:
    """An image on its way to the model: `prepared` has a `shape`, which decides whom it can share a batch with."""

    source: Source
    decoded: Decoded
    prepared: Any


def batches(
    chunks: Iterable[Iterable[tuple[Source, Decoded | Refused]]],
    prepare: Callable[[Source, Decoded], Any],
    batch_size: int,
    skip: Callable[[Source, str], None],
) -> Iterator[list[Image]]:
    """Groups images of one prepared shape.

    A batch never reaches over the end of a chunk, so that a run which is taken up again at any chunk forms the same
    batches.

    Args:
        chunks: decoded images in their final order.
        prepare: the test pipeline.
        batch_size: how many images a full batch has.
        skip: is told of files that were not decoded, or that the pipeline fails on, with the reason.
    """
    for chunk in chunks:
        waiting: dict[Any, list[Image]] = {}
        held = 0
        for source, decoded in chunk:
            if isinstance(decoded, Refused):
                skip(source, decoded.reason)
                continue
            try:
                prepared = prepare(source, decoded)
            except Exception as error:  # pipelines fail in their own ways on odd sizes; the user gets the reason
                skip(source, f"the test pipeline fails on it: {type(error).__name__}: {error}")
                continue
            group = waiting.setdefault(prepared.shape, [])
            group.append(Image(source, decoded, prepared))
            held += decoded.pixels.nbytes
            if len(group) == batch_size:
                del waiting[prepared.shape]
                held -= sum(image.decoded.pixels.nbytes for image in group)
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
