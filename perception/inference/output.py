"""The folder that a run writes: what of it can be reused, and when it must not be touched.

`run.json` is what the run was started with, `predictions.jsonl` one line for each source, as it goes, and
`skipped.json` what could not be used. Everything else is the writers'.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from perception.engine.atomic import output_folder
from perception.engine.errors import UserError
from perception.inference.journal import Journal
from perception.inference.scan import Scan, Source
from perception.inference.states import remove_states
from perception.inference.writing import Files, Record, Records, Summary, Writer

SETTINGS, JOURNAL, SKIPPED = "run.json", "predictions.jsonl", "skipped.json"
PARTS = ".parts"
"""Files that are not whole, while several processes write."""

# A config or checkpoint is what it contains, wherever it lies.
_NOT_COMPARED = ("config", "checkpoint")
_DESCRIBED = {"config_sha256": "config", "checkpoint_sha256": "checkpoint"}


class OutputFolder:
    """Opens OUT for one run, and no other process's at the same time.

    Args:
        path: the folder; made when it does not exist.
        settings: what decides the results, as JSON values; a run with others is not continued.
        scan: the sources of this run.
        summaries: makes the writers, and what else there is, for sources of these names.
        overwrite: start afresh, whatever was there.

    Raises:
        UserError: OUT holds a run with other settings, another process is writing to it, or it cannot be made.
    """

    def __init__(
        self,
        path: str | Path,
        settings: dict[str, Any],
        scan: Scan,
        summaries: Callable[[Sequence[str]], Sequence[Summary]] = lambda names: (),
        overwrite: bool = False,
    ) -> None:
        self.files = Files(Path(path))
        output_folder(self.files.root)
        self._lock = _lock(self.files.root)
        # Whoever has outlived a killed run cannot write any more.
        shutil.rmtree(self.files.root / PARTS, ignore_errors=True)
        self._scan = scan
        self._names = [source.name for source in scan.sources]
        self._summaries = summaries(self._names)
        self.writers = [summary for summary in self._summaries if isinstance(summary, Writer)]
        self.skipped: dict[str, str] = {}
        """Sources that an earlier run skipped for good, with reasons."""
        try:
            if overwrite:
                self._clear(summaries)
            self._check(settings)
            self._write_json(SETTINGS, settings)
            self._journal = self._take_over()
        except BaseException:
            os.close(self._lock)
            raise

    def has(self, source: Source) -> bool:
        """Whether a source is done: its line is written, and the files that it speaks of are there."""
        return source.name in self._journal

    def record(self, source: Source) -> Record | None:
        """The line of a source that is done."""
        return next(self._journal.records([source.name]), None)

    def add(self, record: Record) -> None:
        """Writes a line; the files that it speaks of are there already."""
        self._journal.append(record)

    def records(self, wanted: Callable[[Source], bool] = lambda source: True) -> Iterator[Record]:
        """The lines of sources that have results, in the order of the sources."""
        names = [source.name for source in self._scan.sources if wanted(source)]
        return (record for record in self._journal.records(names) if "skipped" not in record)

    def finish_sequence(self, sequence: str, meta: Any) -> None:
        """Writes what there is about a sequence as a whole."""
        for summary in self._summaries:
            records = self._of(summary, lambda source: source.sequence == sequence)
            summary.write_sequence(self.files, sequence, records, meta)

    def lost_sequences(self) -> list[str]:
        """Sequences of which a file is missing that sums them up."""

        def lost(sequence: str) -> bool:
            names = (name for summary in self._summaries for name in summary.sequence_files(sequence))
            return not all(map(self.files.exists, names))

        return list(filter(lost, dict.fromkeys(source.sequence for source in self._scan.sources)))

    def finish(self, meta: Any, skipped: dict[str, str]) -> None:
        """Writes the files that sum the run up; the same sources give the same bytes, in however many runs."""
        self._journal.arrange(self._names)
        for summary in self._summaries:
            summary.finish(self.files, self._of(summary), meta)
        entries = [{"file_name": name, "reason": skipped[name]} for name in sorted(skipped)]
        self._write_json(SKIPPED, {"skipped": entries, "ignored": self._scan.ignored})

    def close(self) -> None:
        self._journal.close()
        os.close(self._lock)

    def _of(self, summary: Summary, wanted: Callable[[Source], bool] = lambda source: True) -> Records:
        return lambda: filter(summary.wrote, self.records(wanted))

    def _take_over(self) -> Journal:
        """The lines of an earlier run, as far as they still hold."""
        path = self.files.root / JOURNAL
        written = path.stat().st_mtime_ns if path.exists() else 0
        sources = {source.name: source for source in self._scan.sources}
        return Journal(path, lambda record: self._holds(record, sources.get(record["file_name"]), written))

    def _holds(self, record: Record, source: Source | None, written: int) -> bool:
        """Whether an earlier run's line is about the source as it is now, and its files are there."""
        if source is None or record.get("file_size") != source.file_size:
            return False
        if source.modified() > written:
            return False
        if "skipped" in record:
            self.skipped[source.name] = record["skipped"]
            return True
        names = (name for summary in self._summaries if summary.wrote(record) for name in summary.files(record))
        return all(map(self.files.exists, names))

    def _check(self, settings: dict[str, Any]) -> None:
        root = self.files.root
        try:
            earlier = json.loads((root / SETTINGS).read_text())
        except FileNotFoundError:
            if (root / JOURNAL).exists():
                raise UserError(
                    f"{root} holds a {JOURNAL} but no {SETTINGS} that says where it is from; "
                    "choose another --out, or pass --overwrite to start afresh"
                ) from None
            return
        except ValueError:
            earlier = {}
        changes = [
            f"another {_DESCRIBED[key]}" if key in _DESCRIBED else f"{key} {earlier.get(key)!r} there, {value!r} now"
            for key, value in settings.items()
            if key not in _NOT_COMPARED and value != earlier.get(key)
        ]
        if changes:
            raise UserError(
                f"{root} holds a run with other settings ({'; '.join(changes)}); "
                "choose another --out, or pass --overwrite to replace it"
            )

    def _clear(self, summaries: Callable[[Sequence[str]], Sequence[Summary]]) -> None:
        """Removes an earlier run: its own files and those that its lines tell of, and nothing else."""
        path = self.files.root / JOURNAL
        if path.exists():
            with closing(Journal(path, lambda record: True)) as earlier:
                names = earlier.names()
                for summary in summaries(names):
                    for record in filter(summary.wrote, earlier.records(names)):
                        in_sequence = summary.sequence_files(record["sequence"]) if "sequence" in record else ()
                        for name in (*summary.leftovers(record), *in_sequence):
                            self.files.remove(name)
                    summary.clear(self.files)
        remove_states(self.files)
        for name in (SKIPPED, JOURNAL, SETTINGS):
            self.files.remove(name)

    def _write_json(self, name: str, value: Any) -> None:
        with self.files.replacing(name) as file:
            file.write((json.dumps(value, indent=2) + "\n").encode())


def _lock(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"another run is writing to {folder}; wait for it or choose another --out") from None
    return descriptor
