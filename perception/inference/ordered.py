"""The loop over sequences: a sequence's sources in order, one after the other, because the model remembers.

A run that was interrupted takes a sequence up where it stopped, if the predictor can keep its state (see
`perception.inference.states`). Otherwise, and when a source before that place has changed, came or went, the sequence
starts again, which is said.

Each line of the journal names its `sequence` and, in `follows`, the source before it, on which its result builds.
Sources that cannot be read have a line as well, with the reason as `skipped`: what comes after them depends on their
having been left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import Any

from perception.engine.errors import UserError
from perception.inference.attempts import Attempts
from perception.inference.batching import prefetch
from perception.inference.loops import Earlier, Outcome, PooledLoop, Work, WriteQueue
from perception.inference.predicting import SequencePredictor
from perception.inference.reading import Refused
from perception.inference.scan import Source
from perception.inference.states import KeptState


class Ordered(PooledLoop):
    """The loop of a :class:`perception.inference.predicting.SequencePredictor`.

    Args:
        unit: what a source is called.
        workers: processes that read.
    """

    remembers = True

    def __init__(self, unit: str, workers: int) -> None:
        super().__init__(workers)
        self._unit, self.window = unit, 2 + 2 * workers

    def pending(self, sources: Sequence[Source], earlier: Earlier) -> int:
        return sum(len(plan.left) for plan in _plans(sources, earlier))

    def shards(self, sources: Sequence[Source], earlier: Earlier) -> list[Sequence[Source]]:
        """Sequences."""
        return [plan.sources for plan in _plans(sources, earlier) if plan.left]

    def outcomes(self, work: Work) -> Iterator[Outcome]:
        attempts = Attempts(lambda one: [work.predictor.step(one[0])], self._unit)
        plans: deque[_Plan] = deque()
        with closing(prefetch(self._prepared(work, plans), 2)) as ready:
            for first in ready:
                plan = plans.popleft()
                yield from _run(work, plan, chain([first], islice(ready, len(plan.left) - 1)), attempts)
                work.sequence_done(plan.name)

    def _prepared(self, work: Work, plans: deque[_Plan]) -> Iterator[tuple[Source, Any, Any | Refused]]:
        """Sources, samples and what the predictor makes of them, all sequences in one stream; their plans in turn."""

        def sources() -> Iterator[Source]:
            for shard in work.shards:
                for plan in _plans(shard, work.earlier):
                    if plan.restarts_because:
                        first = f"starts again from its first {self._unit}: {plan.restarts_because}"
                        work.say(f"sequence {plan.name} {first}")
                    if plan.left:
                        plans.append(plan)
                        yield from plan.left

        for source, sample in self.read_all(work.reader, sources(), self.window):
            prepared = sample
            if not isinstance(sample, Refused):
                try:
                    prepared = work.predictor.prepare(source, sample)
                except UserError as error:
                    prepared = Refused(str(error))
                except Exception as error:  # pipelines fail in their own ways; the user gets the reason
                    prepared = Refused(f"the test pipeline fails on it: {type(error).__name__}: {error}")
            yield source, sample, prepared


@dataclass(frozen=True)
class _Plan:
    """The sources of a sequence, how many of them are done, and the state after those."""

    sources: Sequence[Source]
    done: int
    state: Any = None
    restarts_because: str = ""

    @property
    def name(self) -> str:
        return self.sources[0].sequence

    @property
    def left(self) -> Sequence[Source]:
        return self.sources[self.done :]

    def begin(self, predictor: SequencePredictor) -> None:
        """Brings a predictor to where the sequence goes on."""
        if self.done:
            predictor.restore(self.sources, self.state)
        else:
            predictor.begin(self.sources)


def _plans(sources: Sequence[Source], earlier: Earlier) -> list[_Plan]:
    """One for each sequence."""
    return [_plan(list(group), earlier) for _, group in groupby(sources, key=lambda source: source.sequence)]


def _plan(sources: Sequence[Source], earlier: Earlier) -> _Plan:
    unbroken = _unbroken(sources, earlier)
    if unbroken == len(sources):
        return _Plan(sources, unbroken)
    after, state = KeptState(earlier.files, sources[0].sequence).load()
    done = next((index + 1 for index, source in enumerate(sources[:unbroken]) if source.name == after), 0)
    if done:
        return _Plan(sources, done, state)
    if not any(map(earlier.has, sources)):
        return _Plan(sources, 0)
    changed = after is not None or any(map(earlier.has, sources[unbroken:]))
    return _Plan(sources, 0, None, "it has changed" if changed else "the state in which it stopped was not kept")


def _unbroken(sources: Sequence[Source], earlier: Earlier) -> int:
    """How many sources from the first on are done, each on top of the one before."""
    before = None
    for index, source in enumerate(sources):
        record = earlier.record(source)
        if record is None or record.get("follows", "") != before:
            return index
        before = source.name
    return len(sources)


def _run(work: Work, plan: _Plan, ready: Iterator[tuple[Source, Any, Any]], attempts: Attempts) -> Iterator[Outcome]:
    """What is left of a sequence."""
    plan.begin(work.predictor)
    kept = KeptState(work.earlier.files, plan.name)
    before = {source.name: earlier for earlier, source in zip(plan.sources, plan.sources[1:])}
    written, failed = plan.done, None

    def chained(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        nonlocal written
        for outcome in outcomes:
            if outcome.record is not None:
                follows = before.get(outcome.source.name)
                place = {"sequence": plan.name, "follows": None if follows is None else follows.name}
                record = {**outcome.record, **place}
                outcome = Outcome(outcome.source, record, outcome.reason)
            yield outcome
            written += 1  # here the line is in the journal

    with closing(WriteQueue(work.write, work.reader.nbytes)) as queue:
        for number in range(plan.done + 1, len(plan.sources) + 1):
            source, sample, prepared = next(ready)
            if failed is not None:
                queue.pass_on(Outcome(source, reason=f"it comes after {failed.name}, on which the model fails"))
                continue
            if isinstance(prepared, Refused):
                record = {"file_name": source.name, "file_size": source.file_size, "skipped": prepared.reason}
                queue.pass_on(Outcome(source, record, prepared.reason))
            else:
                (found,) = attempts.predict([prepared])
                if isinstance(found, Refused):
                    failed = source
                    queue.pass_on(Outcome(source, reason=found.reason))
                    continue
                queue.put(source, sample, found)
            kept.offer(number, source.name, work.predictor.state)
            yield from chained(queue.finished())
            kept.save(written)
        yield from chained(queue.rest())
        kept.save(written)
    if failed is None:
        kept.remove()
