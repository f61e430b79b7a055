"""A run on a Ray cluster: each actor holds one model, this process hands out sources and writes the journal."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from perception.engine.checkpoint import checkpoint_file
from perception.engine.config import find_config
from perception.engine.errors import UserError
from perception.inference.engines.cluster import Needs, check_nodes, joined, look, places
from perception.inference.engines.crew import Crew
from perception.inference.engines.engine import Engine, Listener, Output, Recipe, Session, Setup
from perception.inference.engines.folder_worker import FolderRun
from perception.inference.engines.member import Told, Worker
from perception.inference.loops import Loop, Outcome
from perception.inference.output import PARTS
from perception.inference.reading import Refused
from perception.inference.scan import Source
from perception.inference.writing import Files, Record


@dataclass(frozen=True)
class RayEngine(Engine):
    """Ray's actors.

    Args:
        address: of the cluster, see `cluster.joined`.
        actors: how many; by default as many as there is room for.
        gpus: of each, by default one where the cluster has some and the device is not another; parts of one are shared.
        cpus: of each; it computes with as many threads.
    """

    address: str | None = None
    actors: int | None = None
    gpus: float | None = None
    cpus: float = 1.0

    @contextmanager
    def open(self, setup: Setup) -> Iterator[Session]:
        device = setup.recipe.device
        if device not in (None, "cpu", "cuda"):
            raise UserError(f"--device {device}: with --engine ray it is cpu or cuda, Ray chooses among the GPUs")
        if device == "cpu" and self.gpus:
            raise UserError("--gpus-per-actor and --device cpu contradict each other")
        with joined(self.address) as ray, _Parts(setup.output.files.root) as parts:
            needs = Needs(self.cpus, self._gpus(ray, device))
            nodes = places(ray, needs)
            recipe = _absolute(
                replace(
                    setup.recipe,
                    device="cuda" if needs.gpus else "cpu",
                    directory=os.getcwd(),
                    threads=max(1, int(self.cpus)),
                )
            )
            files = [recipe.config, str(checkpoint_file(recipe.checkpoint))]
            sizes = {name: os.path.getsize(name) for name in files}
            folder = os.path.commonpath([source.path.absolute().parent for source in setup.sources])
            check_nodes(ray, nodes, look, version("torch"), folder, sizes, str(parts.folder))
            room = sum(map(needs.fits, nodes))
            if self.actors is not None and self.actors > room:
                print(f"there is room for {room} actors of {needs}, not for {self.actors}", file=sys.stderr)
            crew = partial(
                Crew,
                ray,
                min(self.actors or room, room),
                needs,
                units=setup.kind.units,
                buried=parts.remove,
            )
            setup.kind.prepare(setup.cfg, recipe, partial(_spread, crew))
            loop = setup.kind.loop(recipe.running(torch.device("cpu")))
            names = ray.put([source.name for source in setup.sources])
            with closing(
                crew(make=lambda number: FolderRun(recipe, parts.files(number)), shared=names, window=loop.window)
            ) as actors:
                groups = loop.shards(setup.sources, setup.output)
                actors.start(len(groups))
                meta = setup.kind.meta(setup.cfg, recipe.checkpoint, None)
                yield _Session(actors, groups, loop, setup.output, meta)

    def _gpus(self, ray: ModuleType, device: str | None) -> float:
        if self.gpus is not None:
            if device == "cuda" and not self.gpus:
                raise UserError("--gpus-per-actor 0 and --device cuda contradict each other")
            return self.gpus
        there = any(node["Alive"] and node["Resources"].get("GPU") for node in ray.nodes())
        return 1.0 if device == "cuda" or (device is None and there) else 0.0


@dataclass(frozen=True)
class _Session:
    actors: Crew
    groups: Sequence[Sequence[Source]]
    loop: Loop
    output: Output
    meta: Any

    def outcomes(self, listener: Listener) -> Iterator[Outcome]:
        events = self.actors.outcomes(self.groups, self._records, lambda group: self.loop.shards(group, self.output))
        for event in events:
            if isinstance(event, Told):
                getattr(listener, event.method)(*event.arguments)
            else:
                yield event

    def _records(self, group: Sequence[Source]) -> dict[str, Record]:
        done = [source for source in group if self.output.has(source)]
        return {source.name: record for source in done if (record := self.output.record(source)) is not None}


class _Parts:
    """A folder below OUT for files that are not whole: each actor has its own in it, which a dead one loses.

    So an actor that is only thought to be dead, because its node cannot be reached, cannot write any more.

    Args:
        root: OUT.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        # Not that of a run that was killed, whose actors may live on for some seconds.
        self.folder = self._root / PARTS / uuid.uuid4().hex[:8]

    def __enter__(self) -> _Parts:
        self.folder.mkdir(parents=True)
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def files(self, number: int) -> Files:
        """What an actor writes to."""
        parts = self.folder / str(number)
        parts.mkdir()
        return Files(self._root, parts)

    def remove(self, number: int) -> None:
        shutil.rmtree(self.folder / str(number), ignore_errors=True)


def _spread(
    crew: Callable[..., Crew], make: Callable[[Any], Worker], groups: Sequence[Sequence[Source]]
) -> Iterator[list[Any]]:
    """What a worker makes of each group's sources, in order; see :meth:`perception.inference.kinds.Kind.prepare`."""
    window = 2 * max(map(len, groups), default=1)
    with closing(crew(make=lambda number: make, shared=None, window=window)) as actors:
        actors.start(len(groups))
        found: dict[str, Any] = {}
        outcomes = actors.outcomes(groups, lambda group: {}, lambda group: [group])
        for group in groups:
            while not all(source.name in found for source in group):
                outcome = next(outcomes)
                if isinstance(outcome, Outcome):
                    refused = None if outcome.reason is None else Refused(outcome.reason)
                    found[outcome.source.name] = refused or outcome.record
            yield [found.pop(source.name) for source in group]


def _absolute(recipe: Recipe) -> Recipe:
    """The same, wherever a process is started."""

    def absolute(value: Any) -> Any:
        return value.absolute() if isinstance(value, Path) else value

    options: Mapping[str, Any] = {name: absolute(value) for name, value in recipe.options.items()}
    config = str(Path(find_config(recipe.config) or recipe.config).absolute())
    return replace(recipe, config=config, checkpoint=recipe.checkpoint.absolute(), options=options)
