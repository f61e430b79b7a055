"""The loop over sources that are never in memory as a whole: one after the other, read, run and written bit by bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perception.inference.loops import Earlier, Loop, Outcome, Work
from perception.inference.predicting import SkippedError
from perception.inference.scan import Source


class Streamed(Loop):
    """The loop of a :class:`perception.inference.predicting.WholePredictor`."""

    def pending(self, sources: Sequence[Source], earlier: Earlier) -> int:
        return sum(not earlier.has(source) for source in sources)

    def outcomes(self, work: Work) -> Iterator[Outcome]:
        for source in work.sources:
            if work.earlier.has(source):
                continue
            try:
                with work.predictor.results(source, work.note, work.say) as (sample, found):
                    record = work.write(source, sample, found)
            except SkippedError as error:
                yield Outcome(source, reason=str(error))
            else:
                yield Outcome(source, record)

    def start(self) -> None:
        """Nothing: sources are read by the predictor."""

    def close(self) -> None:
        """Nothing was begun."""
