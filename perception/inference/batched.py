"""The loop over sources that have nothing to do with each other: in batches, each step beside the others.

Worker processes read; one thread applies the test pipeline and forms batches; the calling thread runs the model; a few
threads draw and write.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
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

    def pending(self, sources: Sequence[Source], earlier: Earlier) -> int:
        return sum(not earlier.has(source) for source in sources)

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

    def chunks(self, sources: Sequence[Source]) -> list[Sequence[Source]]:
        """Sources that may share batches: batches are the same whichever chunks are run, and where."""
        # Shapes find their partners within a chunk; it is also what an interrupted run has to form again.
        size = max(64, 8 * self._batch_size)
        return [sources[start : start + size] for start in range(0, len(sources), size)]

    def _read(self, work: Work) -> Iterator[Iterable[tuple[Source, Any | Refused]]]:
        """Samples by chunk, while the processes are already busy with what comes next."""
        chunks = [chunk for chunk in self.chunks(work.sources) if not all(map(work.earlier.has, chunk))]
        sources = (source for chunk in chunks for source in chunk)
        ahead = self._batch_size + 2 * self._workers
        samples = self.read_all(work.reader, sources, ahead)
        for chunk in chunks:
            yield (next(samples) for _ in chunk)
