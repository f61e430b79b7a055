"""A kind of folder in one small file: texts, of which the words are counted.

A text with the word "deadly" kills the process that counts its words, unless the file `mark` is there.
"""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from perception.engine.checkpoint import load_checkpoint_file
from perception.inference.kinds import KINDS, Kind
from perception.inference.reading import Refused
from perception.inference.scan import scan
from perception.inference.writing import Writer
from tests.inference.toy_work import work


class TextReader:
    def scan(self, folder, patterns, exclude):
        return scan(folder, {".txt"}, patterns, exclude)

    def read(self, source, alone):
        try:
            return source.path.read_text()
        except UnicodeDecodeError:
            return Refused("not a text")

    def nbytes(self, sample):
        return len(sample)


@dataclass(frozen=True)
class Words:
    words: list[str]
    shape: str = "any two texts may share a batch"


class WordCounter:
    def __init__(self, weight, seconds, mark):
        self.weight, self.seconds, self.mark = weight, seconds, mark

    def prepare(self, source, sample):
        return Words(sample.split())

    def predict(self, batch):
        work(self.seconds)
        if any("deadly" in prepared.words for prepared in batch) and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [self.weight * len(prepared.words) for prepared in batch]


class CountWriter(Writer):
    def takes(self, found):
        return isinstance(found, int)

    def wrote(self, record):
        return "words" in record

    def files(self, record):
        yield f"counts/{record['file_name']}"

    def write(self, files, source, sample, found, meta):
        with files.replacing(f"counts/{source.name}") as file:
            file.write(f"{found}\n".encode())
        return {"words": found}

    def finish(self, files, records, meta):
        with files.replacing("total.txt") as file:
            file.write(f"{sum(record['words'] for record in records())}\n".encode())

    def clear(self, files):
        files.remove("total.txt")


@KINDS.register_module()
class Texts(Kind):
    unit, units = "text", "texts"
    outputs = "  counts/  the words of each text"

    def __init__(self, seconds=0.0, mark="/"):
        self.seconds, self.mark = seconds, mark

    def reader(self, predictor):
        return TextReader()

    def predictor(self, cfg, checkpoint, running):
        return WordCounter(load_checkpoint_file(checkpoint)["weight"], self.seconds, self.mark)

    def writers(self, names, pictures):
        return [CountWriter()]

    def places(self, pictures):
        return {"counts": "counts", "total": "total.txt"}
