"""A model over a folder, whatever the folder holds: scan, run, write, sum up.

What differs between images, camera rigs, point clouds, ... is the kind of folder (`perception.inference.kinds`), which
the config names. A run that was interrupted continues where it stopped and ends with the same files.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from perception.engine.errors import UserError
from perception.engine.page import page
from perception.inference.engines.engine import Engine, Recipe, Session, Setup
from perception.inference.engines.local import Local
from perception.inference.kinds import Kind
from perception.inference.output import SKIPPED, OutputFolder
from perception.inference.progress import Progress
from perception.inference.scan import Scan
from perception.inference.settings import run_settings
from perception.inference.showing import write_run_page
from perception.inference.writing import Summary

# Bytes of a file's name that leave room, of 255, for what results add to it.
_LONGEST_NAME = 235
# Skipped sources that the closing summary names, and remarks that are shown.
_LISTED = 20


@dataclass(frozen=True)
class Job:
    """What to run on what.

    Args:
        config: an MMEngine config file; its `folder_kind` says what a folder holds, by default images.
        checkpoint: weights of its model.
        folder: a folder, or one file.
        out: where results go.
        batch_size: sources (or parts of them) a batch, as far as their shapes agree.
        workers: processes that read.
        device: a torch device; by default CUDA where there is some, else the CPU.
        patterns: shell patterns of the files to take; none means everything that by its name is of the kind.
        pictures: draw pictures.
        page: write a page to look at.
        overwrite: replace what is in `out`, instead of continuing it.
        options: arguments of the kind, such as `score_thr` for images.
        cfg_options: settings of the config to change, by dotted name.
        engine: where sources are run.
    """

    config: str
    checkpoint: Path
    folder: Path
    out: Path
    batch_size: int = 4
    workers: int = 2
    device: str | None = None
    patterns: Sequence[str] = ()
    pictures: bool = True
    page: bool = True
    overwrite: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    cfg_options: dict[str, Any] = field(default_factory=dict)
    engine: Engine = field(default_factory=Local)


@dataclass(frozen=True)
class Report:
    """What a run did: sources finished now and by earlier runs, skipped ones with reasons, and the time of the loop."""

    job: Job
    kind: Kind
    finished: int
    reused: int
    skipped: dict[str, str]
    ignored: int
    seconds: float

    def text(self) -> str:
        """The closing words for a user."""
        units = self.kind.units
        done = f"{self.finished} {units} done in {self.seconds:.1f} s"
        if self.finished:
            done += f" ({self.finished / self.seconds:.2f} {units}/s)"
        if self.reused:
            done += f", {self.reused} were done before"
        lines = [done]
        if self.skipped:
            lines.append(f"{len(self.skipped)} skipped:")
            lines += [f"  {name}: {self.skipped[name]}" for name in sorted(self.skipped)[:_LISTED]]
            if len(self.skipped) > _LISTED:
                lines.append(f"  ... and {len(self.skipped) - _LISTED} more, all in {self.job.out / SKIPPED}")
        if self.ignored:
            lines.append(f"{self.ignored} other files left aside (by their names no {units} that were asked for)")
        places = self.kind.places(self.job.pictures)
        for name, place in ({**places, "page": page.INDEX} if self.job.page else places).items():
            if (self.job.out / place).exists():
                lines.append(f"{name + ':':<12} {self.job.out / place}")
        return "\n".join(lines)


def run(job: Job) -> Report:
    """Does a job.

    Raises:
        UserError: something in the job has to be put right first.
    """
    recipe = Recipe(
        job.config,
        job.checkpoint,
        job.batch_size,
        job.workers,
        job.device,
        job.pictures,
        job.page,
        job.options,
        job.cfg_options,
    )
    cfg, kind = recipe.load()
    settings = run_settings(job.config, cfg, job.checkpoint, job.folder, job.patterns, kind)
    found = _scan(job, kind)

    def writers(names: Sequence[str]) -> Sequence[Summary]:
        return recipe.summaries(kind, names)

    with closing(OutputFolder(job.out, settings, found, writers, job.overwrite)) as output:
        pending = kind.loop(recipe.running(torch.device("cpu"))).pending(found.sources, output)
        finished, skipped = 0, found.skipped | output.skipped
        started = time.perf_counter()
        if pending:
            with job.engine.open(Setup(recipe, cfg, kind, found.sources, output)) as session:
                meta = session.meta
                started = time.perf_counter()
                try:
                    finished, refused = _go(session, len(found.sources), pending, kind, output)
                except KeyboardInterrupt:
                    _write_page(job, kind, found, output, meta, skipped)
                    raise
                skipped |= refused
        else:
            meta = kind.meta(cfg, job.checkpoint, None)
        for sequence in output.lost_sequences():
            output.finish_sequence(sequence, meta)
        seconds = time.perf_counter() - started
        output.finish(meta, skipped)
        _write_page(job, kind, found, output, meta, skipped)
        reused = sum(output.has(source) and source.name not in skipped for source in found.sources) - finished
        return Report(job, kind, finished, reused, skipped, len(found.ignored), seconds)


def _write_page(job: Job, kind: Kind, found: Scan, output: OutputFolder, meta: Any, skipped: dict[str, str]) -> None:
    if job.page:
        write_run_page(output, found.sources, job.folder, kind.showing(), (kind.unit, kind.units), meta, skipped)
    else:  # one of an earlier run would not show this one
        page.remove_page(output.files.root)


class _Listener:
    """Shows what happens beside outcomes."""

    def __init__(self, progress: Progress, sequence_done: Callable[[str], None]) -> None:
        self.note, self.say, self.sequence_done = progress.note, progress.say, sequence_done
        self._numbers = itertools.count(1)

    def remark(self, name: str, text: str) -> None:
        if (number := next(self._numbers)) <= _LISTED:
            more = "; no more of these are shown" if number == _LISTED else ""
            self.say(f"{name}: {text}{more}")


def _go(session: Session, total: int, pending: int, kind: Kind, output: OutputFolder) -> tuple[int, dict[str, str]]:
    """Runs what is pending; returns how many sources were finished, and those that were skipped, with reasons."""
    finished: set[str] = set()
    skipped: dict[str, str] = {}
    with closing(Progress(total, total - pending, kind.unit, kind.units)) as progress:
        listener = _Listener(progress, partial(output.finish_sequence, meta=session.meta))
        with closing(session.outcomes(listener)) as outcomes:
            for outcome in outcomes:
                name = outcome.source.name
                if outcome.record is not None:
                    output.add(outcome.record)
                # A sequence that starts again after a process has died comes by twice.
                again = name in finished or name in skipped
                if outcome.reason is None:
                    finished.add(name)
                    skipped.pop(name, None)
                else:
                    skipped[name] = outcome.reason
                if not again:
                    progress.add()
    return len(finished), skipped


def _scan(job: Job, kind: Kind) -> Scan:
    folder, out = job.folder.resolve(), job.out.resolve()
    if not folder.exists():
        raise UserError(f"folder {job.folder} does not exist")
    if folder == out or out in folder.parents:
        raise UserError(f"--out {job.out} contains the {kind.units} in {job.folder}; choose a folder of its own")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {job.out} is a file; name a folder")
    found = kind.reader(None).scan(job.folder.absolute(), job.patterns, out)
    for source in [source for source in found.sources if len(os.fsencode(source.path.name)) > _LONGEST_NAME]:
        found.sources.remove(source)
        found.skipped[source.name] = f"its name has more than {_LONGEST_NAME} bytes: no room for results' names"
    if not found.sources and not found.skipped:
        wanted = f"files that match {' '.join(job.patterns)}" if job.patterns else kind.units
        raise UserError(f"folder {job.folder} holds no {wanted} ({len(found.ignored)} other files)")
    return found
