"""How results are shown on a run's page: what a kind of folder says of them, and the files beside the page."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.datasets.palette import Colour
from perception.engine.page import page, pictures
from perception.inference.output import OutputFolder
from perception.inference.scan import Source
from perception.inference.writing import Files, Record, Records, Summary, Writer

_PICTURES = "images/"


@dataclass(frozen=True)
class Exhibit:
    """What the page's large view shows of a result beside its line of the journal.

    Attributes:
        picture: what results are drawn on, uint8 (height, width, 3) RGB.
        scene: JSON, for `flat.js` or `space.js` of :mod:`perception.engine.page`.
    """

    picture: np.ndarray | None = None
    scene: dict[str, Any] | None = None


class Showing:
    """What the page shows of a kind's results. As it is: the picture that was drawn, and the record."""

    named_by_files = False
    """Whether the name of each source is the path of a file in the folder."""

    measure: str | None = None
    """What :meth:`measured` says; low values are bad."""

    def exhibit(self, source: Source, sample: Any, found: Any, meta: Any) -> Exhibit:
        """What is kept while sample and result are in memory; called after they were written."""
        return Exhibit()

    def classes(self, meta: Any) -> tuple[Sequence[str], Sequence[Colour]]:
        """Names and colours, as far as they are known beforehand."""
        return (), ()

    def objects(self, record: Record) -> Iterable[tuple[str, float | None]]:
        """Class and score of each object of a line."""
        return ()

    def shares(self, record: Record) -> Mapping[str, float]:
        """Or the share of each class of the pixels."""
        return {}

    def measured(self, record: Record) -> float | None:
        """How good a line's result is, as far as the kind has a measure; the page begins with the worst."""
        return None


class ShownWriter(Writer):
    """A writer whose results get their files beside the page.

    Args:
        writer: of the kind.
        showing: of the kind.
        names: of all sources.
        pictures: pictures are drawn.
    """

    def __init__(self, writer: Writer, showing: Showing, names: Sequence[str], pictures: bool) -> None:
        self._writer, self._showing, self._pictures = writer, showing, pictures
        self._beyond = frozenset(names[page.LIMIT :])

    def takes(self, found: Any) -> bool:
        return self._writer.takes(found)

    def wrote(self, record: Record) -> bool:
        return self._writer.wrote(record)

    def files(self, record: Record) -> Iterable[str]:
        return self._writer.files(record)

    def leftovers(self, record: Record) -> Iterable[str]:
        yield from self._writer.leftovers(record)
        yield from pictures.files_of(record["file_name"])

    def write(self, files: Files, source: Source, sample: Any, found: Any, meta: Any) -> Record:
        record = self._writer.write(files, source, sample, found, meta)
        if self._pictures and source.name not in self._beyond:
            self._keep(files, source, record, self._showing.exhibit(source, sample, found, meta))
        return record

    def sequence_files(self, sequence: str) -> Iterable[str]:
        return self._writer.sequence_files(sequence)

    def write_sequence(self, files: Files, sequence: str, records: Records, meta: Any) -> None:
        self._writer.write_sequence(files, sequence, records, meta)

    def finish(self, files: Files, records: Records, meta: Any) -> None:
        self._writer.finish(files, records, meta)

    def clear(self, files: Files) -> None:
        self._writer.clear(files)

    def _keep(self, files: Files, source: Source, record: Record, exhibit: Exhibit) -> None:
        drawn = drawn_picture(self._writer.files({"file_name": source.name} | record))
        shown = exhibit.picture if drawn is None else files.root / drawn
        if shown is not None:
            pictures.write_thumbnail(files.root, source.name, shown)
        if exhibit.picture is not None:
            pictures.write_view(files.root, source.name, exhibit.picture)
        else:  # an earlier run's
            files.remove(pictures.view_file(source.name))
        if exhibit.scene is not None:
            pictures.write_scene(files.root, source.name, exhibit.scene)
        else:
            files.remove(pictures.scene_file(source.name))


class _Page(Summary):
    """The page's part in a run that starts afresh."""

    def wrote(self, record: Record) -> bool:
        return False

    def clear(self, files: Files) -> None:
        page.remove_page(files.root)


def shown_summaries(
    summaries: Iterable[Summary], showing: Showing, names: Sequence[str], kept: bool
) -> Sequence[Summary]:
    """What writes a run, with what is kept for its page.

    Args:
        summaries: of the kind.
        showing: of the kind.
        names: of all sources.
        kept: keep thumbnails and pictures; without, a run that starts afresh still removes an earlier one's.
    """
    shown = (ShownWriter(one, showing, names, kept) if isinstance(one, Writer) else one for one in summaries)
    return [*shown, _Page()]


def drawn_picture(files: Iterable[str]) -> str | None:
    """The picture among a result's files."""
    return next((file for file in files if file.startswith(_PICTURES)), None)


def write_run_page(
    output: OutputFolder,
    sources: Sequence[Source],
    folder: Path,
    showing: Showing,
    words: tuple[str, str],
    meta: Any,
    skipped: Mapping[str, str],
) -> None:
    """Writes the page of a run, as far as it is done.

    Args:
        output: of the run.
        sources: all of it.
        folder: what it runs on.
        showing: of the kind.
        words: what one source, and several, are called.
        meta: as the kind returned it.
        skipped: names and reasons.
    """
    names, palette = showing.classes(meta)
    originals = None
    if showing.named_by_files:
        originals = os.path.relpath(folder if folder.is_dir() else folder.parent, output.files.root)
    facts = page.Facts(
        title=f"{folder.resolve().name}: {words[1]}",
        unit=words[0],
        units=words[1],
        classes=names,
        palette=palette,
        originals=originals,
        measure=showing.measure,
        pending=sum(not output.has(source) and source.name not in skipped for source in sources),
    )
    page.write_page(output.files.root, facts, _items(output, showing), skipped)


def _items(output: OutputFolder, showing: Showing) -> Iterator[page.Item]:
    for record in output.records():
        writer = next((writer for writer in output.writers if writer.wrote(record)), None)
        files = [] if writer is None else list(writer.files(record))
        yield page.Item(
            name=record["file_name"],
            record=record,
            objects=showing.objects(record),
            shares=showing.shares(record),
            sequence=record.get("sequence", ""),
            picture=drawn_picture(files),
            files=files,
            measure=showing.measured(record),
        )
