"""What an actor does for a folder run: a kind's loop over the groups of sources that it is handed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from perception.inference.engines.engine import Recipe, ResultWriter, usable_device
from perception.inference.engines.member import Event, Finished, Ran, Shard, Told
from perception.inference.loops import Work
from perception.inference.scan import Source
from perception.inference.writing import Files, Record, Writer


@dataclass(frozen=True)
class FolderRun:
    """Makes workers of one run.

    Attributes:
        recipe: of the model.
        files: below OUT.
    """

    recipe: Recipe
    files: Files

    def __call__(self, names: Sequence[str]) -> FolderWorker:
        """A worker, for the names of all sources of the run."""
        self.recipe.settle()
        return FolderWorker(self.recipe, names, self.files)


class FolderWorker:
    """One predictor and its loop.

    Args:
        recipe: of the model.
        names: of all sources of the run.
        files: below OUT.
    """

    def __init__(self, recipe: Recipe, names: Sequence[str], files: Files) -> None:
        cfg, self._kind = recipe.load()
        running = recipe.running(usable_device(recipe.device))
        self._loop = self._kind.loop(running)
        self.remembers = self._loop.remembers
        self._loop.start()
        self._predictor = self._kind.predictor(cfg, recipe.checkpoint, running)
        self._meta = self._kind.meta(cfg, recipe.checkpoint, self._predictor)
        summaries = recipe.summaries(self._kind, names)
        self._writers = [summary for summary in summaries if isinstance(summary, Writer)]
        self._files = files

    def events(self, shards: Iterator[Shard], tell: Callable[[Event], None]) -> Iterator[Event]:
        earlier = _Told(self._files)
        places: dict[str, tuple[int, int]] = {}
        left: dict[int, int] = {}

        def taken() -> Iterator[Sequence[Source]]:
            for shard in shards:
                earlier.records.update(shard.records)
                places.update({source.name: (shard.number, place) for place, source in enumerate(shard.sources)})
                left[shard.number] = self._loop.pending(shard.sources, earlier)
                yield shard.sources

        work = Work(
            shards=taken(),
            earlier=earlier,
            reader=self._kind.reader(self._predictor),
            predictor=self._predictor,
            write=ResultWriter(
                self._kind,
                self._writers,
                self._files,
                self._meta,
                lambda name, text: tell(Told("remark", (name, text))),
            ),
            sequence_done=lambda sequence: tell(Told("sequence_done", (sequence,))),
            note=lambda text: tell(Told("note", (text,))),
            say=lambda text: tell(Told("say", (text,))),
        )
        with closing(self._loop.outcomes(work)) as outcomes:
            for outcome in outcomes:
                # What a loop does once a source is through is done when the next one comes.
                for number in [number for number, count in list(left.items()) if not count]:
                    del left[number]
                    yield Finished(number)
                number, place = places.pop(outcome.source.name)
                yield Ran(number, place, outcome.record, outcome.reason)
                left[number] -= 1
        yield from map(Finished, left)


class _Told:
    """What is done, as far as the process that writes the journal has said so."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.records: dict[str, Record] = {}

    def has(self, source: Source) -> bool:
        return source.name in self.records

    def record(self, source: Source) -> Record | None:
        return self.records.get(source.name)
