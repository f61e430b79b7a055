"""The loop over sources that are never in memory as a whole: one after the other, read, run and written bit by bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from perception.inference.loops import Earlier, Loop, Outcome, Work
from perception.inference.predicting import SkippedError
from perception.inference.scan import Source
from perception.inference.states import KeptState


class Streamed(Loop):
    """The loop of a :class:`perception.inference.predicting.WholePredictor`."""

    remembers = True

    def pending(self, sources: Sequence[Source], earlier: Earlier) -> int:
        return sum(not earlier.has(source) for source in sources)

    def shards(self, sources: Sequence[Source], earlier: Earlier) -> list[Sequence[Source]]:
        """Sources one by one; also one that is done, but was killed before its state was removed."""
        left = [
            source for source in sources if not earlier.has(source) or KeptState(earlier.files, source.name).exists()
        ]
        return [[source] for source in left]

    def outcomes(self, work: Work) -> Iterator[Outcome]:
        for source in chain.from_iterable(work.shards):
            kept = KeptState(work.earlier.files, source.name)
            if not work.earlier.has(source):
                yield _outcome(work, source, kept)
            # Here its line is in the journal, perhaps since a run that was killed just then.
            kept.remove()

    def start(self) -> None:
        """Nothing: sources are read by the predictor."""

    def close(self) -> None:
        """Nothing was begun."""


def _outcome(work: Work, source: Source, kept: KeptState) -> Outcome:
    try:
        with work.predictor.results(source, kept, work.note, work.say) as (sample, found):
            return Outcome(source, work.write(source, sample, found))
    except SkippedError as error:
        return Outcome(source, reason=str(error))
