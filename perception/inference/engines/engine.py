"""What an engine is, and what it is given."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from mmengine.config import Config

from perception.engine.config import load_config
from perception.engine.errors import UserError
from perception.inference.kinds import Kind, Running, build_kind
from perception.inference.loops import Earlier, Outcome
from perception.inference.scan import Source
from perception.inference.showing import shown_summaries
from perception.inference.writing import Files, Record, Summary, Writer


@dataclass(frozen=True)
class Recipe:
    """What any process needs to build the model of a run; small. Most fields are those of a job.

    Attributes:
        directory: what paths in the config are relative to, for processes that are started elsewhere.
        threads: of torch; None leaves them as they are.
    """

    config: str
    checkpoint: Path
    batch_size: int
    workers: int
    device: str | None
    pictures: bool
    page: bool
    options: Mapping[str, Any]
    cfg_options: dict[str, Any]
    directory: str | None = None
    threads: int | None = None

    def settle(self) -> None:
        """Makes a process that was started elsewhere work as this one."""
        if self.directory is not None and os.path.isdir(self.directory):
            os.chdir(self.directory)
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    def load(self) -> tuple[Config, Kind]:
        """The config, and the kind of folder that it names."""
        cfg = load_config(self.config, self.cfg_options)
        return cfg, build_kind(cfg, self.options)

    def summaries(self, kind: Kind, names: Sequence[str]) -> Sequence[Summary]:
        """What writes the run of all sources of these names."""
        return shown_summaries(kind.writers(names, self.pictures), kind.showing(), names, self.page and self.pictures)

    def running(self, device: torch.device) -> Running:
        return Running(self.batch_size, self.workers, device, self.pictures)


class Output(Earlier, Protocol):
    """The folder that is written."""

    writers: Sequence[Writer]


@dataclass(frozen=True)
class Setup:
    """A run: its model, all of its sources, and the folder that is written."""

    recipe: Recipe
    cfg: Config
    kind: Kind
    sources: Sequence[Source]
    output: Output


class Listener(Protocol):
    """Is told what happens beside outcomes; always in the thread that asks for outcomes, or in one of the engine's."""

    def note(self, text: str) -> None:
        """How far a source is."""

    def say(self, text: str) -> None:
        """A sentence that the user has to read."""

    def remark(self, name: str, text: str) -> None:
        """What the user should know of how a source was read."""

    def sequence_done(self, sequence: str) -> None:
        """The outcomes of its last source were yielded."""


class Session(Protocol):
    """A run that is under way. `meta` is what the kind's writers need to know of the model."""

    meta: Any

    def outcomes(self, listener: Listener) -> Iterator[Outcome]:
        """Runs what is pending. Whoever iterates writes an outcome's line before asking for the next.

        Raises:
            UserError: the model fails on everything.
        """


class Engine(ABC):
    """Runs sources."""

    @abstractmethod
    def open(self, setup: Setup) -> AbstractContextManager[Session]:
        """Brings the model up; when the context ends, everything that was started is ended.

        Raises:
            UserError: something has to be put right first.
        """


@dataclass(frozen=True)
class ResultWriter:
    """Writes a result's files and makes its line for the journal, in any thread.

    Args:
        kind: of the folder.
        writers: its.
        files: where to.
        meta: for the writers.
        remark: is told a source's name and what the user should know of how it was read.
    """

    kind: Kind
    writers: Sequence[Writer]
    files: Files
    meta: Any
    remark: Callable[[str, str], None]

    def __call__(self, source: Source, sample: Any, found: Any) -> Record:
        writer = next((writer for writer in self.writers if writer.takes(found)), None)
        if writer is None:
            raise UserError(f"the model yields {type(found).__name__}, which {self.kind.units} have no writer for")
        if remark := self.kind.remark(sample):
            self.remark(source.name, remark)
        head = {"file_name": source.name, "file_size": source.file_size}
        return head | writer.write(self.files, source, sample, found, self.meta)


def usable_device(name: str | None) -> torch.device:
    """A torch device; by default CUDA where there is some, else the CPU.

    Raises:
        UserError: it cannot be used.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
    return device
