"""A kind of folder whose model remembers: diaries, of which the words are summed up page by page."""

from dataclasses import dataclass, replace

from perception.inference.kinds import KINDS, Kind
from perception.inference.ordered import Ordered
from perception.inference.reading import Refused
from perception.inference.scan import scan
from perception.inference.writing import Writer
from tests.inference.toy_work import work


class PageReader:
    """Each folder is a diary; its pages are called `1.txt`, `2.txt`, ..."""

    def scan(self, folder, patterns, exclude):
        found = scan(folder, {".txt"}, patterns, exclude)
        pages = [
            replace(source, sequence=source.name.rpartition("/")[0], details=int(source.path.stem))
            for source in found.sources
        ]
        found.sources = sorted(pages, key=lambda page: (page.sequence, page.details))
        return found

    def read(self, source, alone):
        try:
            return source.path.read_text()
        except UnicodeDecodeError:
            return Refused("not a text")

    def nbytes(self, sample):
        return len(sample)


@dataclass(frozen=True)
class Sum:
    words: int
    missed: int
    """Pages left out since the last one."""


class Historian:
    def __init__(self, seconds, keeps):
        self.seconds, self.keeps = seconds, keeps

    def begin(self, sources):
        self.words, self.page = 0, 0

    def prepare(self, source, sample):
        return source.details, sample.split()

    def step(self, prepared):
        work(self.seconds)
        page, words = prepared
        if "illegible" in words:
            raise ValueError("cannot read this")
        missed, self.page = page - self.page - 1, page
        self.words += len(words)
        return Sum(self.words, missed)

    def state(self):
        return {"words": self.words, "page": self.page} if self.keeps else None

    def restore(self, sources, state):
        self.words, self.page = state["words"], state["page"]


class SumWriter(Writer):
    def takes(self, found):
        return isinstance(found, Sum)

    def wrote(self, record):
        return "words" in record

    def write(self, files, source, sample, found, meta):
        return {"words": found.words, "missed": found.missed}

    def sequence_files(self, sequence):
        yield f"diaries/{sequence}.txt"

    def write_sequence(self, files, sequence, records, meta):
        with files.replacing(f"diaries/{sequence}.txt") as file:
            for record in records():
                file.write(f"{record['file_name']} {record['words']}\n".encode())


@KINDS.register_module()
class Diaries(Kind):
    unit, units = "page", "pages"

    def __init__(self, seconds=0.0, keeps=True):
        self.seconds, self.keeps = seconds, keeps

    def reader(self, predictor):
        return PageReader()

    def predictor(self, cfg, checkpoint, running):
        return Historian(self.seconds, self.keeps)

    def loop(self, running):
        return Ordered(self.unit, running.workers)

    def writers(self, names, pictures):
        return [SumWriter()]
