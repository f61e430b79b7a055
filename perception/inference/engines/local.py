"""A run in this process, whose files are read by others of the same machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from perception.inference.engines.engine import Engine, Listener, ResultWriter, Session, Setup, usable_device
from perception.inference.loops import Loop, Outcome, Work


class Local(Engine):
    """This process."""

    @contextmanager
    def open(self, setup: Setup) -> Iterator[Session]:
        running = setup.recipe.running(usable_device(setup.recipe.device))
        with closing(setup.kind.loop(running)) as loop:
            loop.start()
            predictor = setup.kind.predictor(setup.cfg, setup.recipe.checkpoint, running)
            yield _Session(setup, loop, predictor, setup.kind.meta(setup.cfg, setup.recipe.checkpoint, predictor))


@dataclass(frozen=True)
class _Session:
    setup: Setup
    loop: Loop
    predictor: Any
    meta: Any

    def outcomes(self, listener: Listener) -> Iterator[Outcome]:
        kind, output = self.setup.kind, self.setup.output
        work = Work(
            shards=self.loop.shards(self.setup.sources, output),
            earlier=output,
            reader=kind.reader(self.predictor),
            predictor=self.predictor,
            write=ResultWriter(kind, output.writers, output.files, self.meta, listener.remark),
            sequence_done=listener.sequence_done,
            note=listener.note,
            say=listener.say,
        )
        with closing(self.loop.outcomes(work)) as outcomes:
            yield from outcomes
