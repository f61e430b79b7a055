"""Results of a whole run in one file that COCO's tools read: `predictions.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from perception.inference.images.image_writer import ImageWriter, Labels
from perception.inference.writing import Files, Record, Records, Summary

RESULTS = "predictions.json"


class CocoResults(Summary):
    """Images, categories, and annotations as far as there are some.

    Args:
        writers: know what becomes of a line.
    """

    def __init__(self, writers: Sequence[ImageWriter]) -> None:
        self._writers = writers

    def finish(self, files: Files, records: Records, meta: Labels) -> None:
        with files.replacing(RESULTS) as file:
            for piece in self._pieces(records, meta.classes):
                file.write(piece.encode())

    def clear(self, files: Files) -> None:
        files.remove(RESULTS)

    def _pieces(self, records: Records, classes: Sequence[str]) -> Iterator[str]:
        """The text piece by piece: a run's results need not fit into memory."""
        yield '{"images": ['
        for index, record in enumerate(records()):
            image = {"id": index + 1, **{key: record[key] for key in ("file_name", "width", "height")}}
            yield (",\n" if index else "\n") + json.dumps(image | self._writer(record).coco_image(record))
        categories = [{"id": index + 1, "name": name} for index, name in enumerate(classes)]
        yield '],\n"categories": ' + json.dumps(categories) + ',\n"annotations": ['
        count = 0
        for index, record in enumerate(records()):
            for annotation in self._writer(record).coco_annotations(record, index + 1, count + 1):
                yield (",\n" if count else "\n") + json.dumps(annotation)
                count += 1
        yield "]}\n"

    def _writer(self, record: Record) -> ImageWriter:
        return next(writer for writer in self._writers if writer.wrote(record))
