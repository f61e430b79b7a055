"""The loop over sources that have nothing to do with each other: in batches, each step beside the others.

Worker processes read; one thread applies the test pipeline and forms batches; the calling thread runs the model; a few
threads draw and write.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from typing import Any

from perception.inference.attempts import Attempts
from perception.inference.batching import batches, prefetch
from perception.inference.loops import Earlier, Outcome, PooledLoop, Work, WriteQueue
from perception.inference.reading import Refused
from perception.inference.scan import Source


class Batched(PooledLoop):
    """The loop of a :class:`perception.inference.predicting.Predictor`.

    Args:
        unit: what a source is called.
        batch_size: sources a batch, as far as their shapes agree.
        workers: processes that read.
    """

    def __init__(self, unit: str, batch_size: int, workers: int) -> None:
        super().__init__(workers)
        self._unit, self._batch_size = unit, batch_size
        # Shapes find their partners within a chunk; it is also what an interrupted run has to form again.
        self.window = max(64, 8 * batch_size)

    def pending(self, sources: Sequence[Source], earlier: Earlier) -> int:
        return sum(not earlier.has(source) for source in sources)

    def shards(self, sources: Sequence[Source], earlier: Earlier) -> list[Sequence[Source]]:
        """Sources that may share batches."""
        chunks = [sources[start : start + self.window] for start in range(0, len(sources), self.window)]
        return [chunk for chunk in chunks if not all(map(earlier.has, chunk))]

    def outcomes(self, work: Work) -> Iterator[Outcome]:
        attempts = Attempts(work.predictor.predict, self._unit)
        refused: deque[Outcome] = deque()
        formed = batches(
            self._read(work),
            work.predictor.prepare,
            work.reader.nbytes,
            self._batch_size,
            lambda source, reason: refused.append(Outcome(source, reason=reason)),
        )
        with closing(WriteQueue(work.write, work.reader.nbytes)) as queue, closing(prefetch(formed, 1)) as ready:
            for batch in ready:
                # A batch of which an earlier run finished some is run whole, so that its numbers come out the same.
                if not all(work.earlier.has(item.source) for item in batch):
                    for item, found in zip(batch, attempts.predict([item.prepared for item in batch])):
                        if work.earlier.has(item.source):
                            continue
                        if isinstance(found, Refused):
                            refused.append(Outcome(item.source, reason=found.reason))
                        else:
                            queue.put(item.source, item.sample, found)
                yield from queue.finished()
                while refused:
                    yield refused.popleft()
            yield from queue.rest()
        yield from refused

    def _read(self, work: Work) -> Iterator[Iterable[tuple[Source, Any | Refused]]]:
        """Samples by chunk, while the processes are already busy with what comes next."""
        sizes: deque[int] = deque()

        def sources() -> Iterator[Source]:
            for chunk in work.shards:
                sizes.append(len(chunk))
                yield from chunk

        samples = self.read_all(work.reader, sources(), self._batch_size + 2 * self._workers)
        for first in samples:
            yield chain([first], islice(samples, sizes.popleft() - 1))
