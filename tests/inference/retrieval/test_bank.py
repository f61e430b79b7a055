"""The bank of descriptors: its bytes, its updates, what it refuses."""

import os

import numpy as np
import pytest

from perception.engine.errors import UserError
from perception.inference.reading import Refused
from perception.inference.retrieval.bank import Encoded, update
from perception.inference.scan import scan

IDENTITY = {"checkpoint": "a", "config": "b"}


class KilledError(Exception):
    """In place of a signal."""


class Encoder:
    """Descriptors that are a file's bytes; remembers what it was asked for."""

    def __init__(self, die_after=None):
        self.seen, self.die_after = [], die_after

    def __call__(self, batches):
        for number, batch in enumerate(batches):
            if number == self.die_after:
                raise KilledError
            self.seen += [tile.name for tile in batch]
            yield [self.encode(tile.path.read_bytes()) for tile in batch]

    @staticmethod
    def encode(data):
        if data.startswith(b"bad"):
            return Refused("damaged")
        values = {b"zero": np.zeros(4), b"nan": np.full(4, np.nan)}.get(data)
        vector = np.frombuffer(data.ljust(4)[:4], np.uint8).astype(np.float32) if values is None else values
        return Encoded(vector, data.hex(), 8)


@pytest.fixture
def folder(tmp_path):
    tiles = tmp_path / "tiles"
    tiles.mkdir()
    for number in range(10):
        (tiles / f"{number:02d}.png").write_bytes(b"t%03d" % number)
    return tiles


def run(folder, encoder=None, bank=None, identity=IDENTITY, said=None):
    encoder = encoder or Encoder()
    tiles = scan(folder, {".png"}).sources
    path = bank or folder.with_name("bank")
    return update(path, identity, 4, tiles, encoder, 3, (said if said is not None else []).append), encoder


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_rows(folder):
    bank, encoder = run(folder)
    assert encoder.seen == [f"{n:02d}.png" for n in range(10)]
    assert [entry.name for entry in bank.entries] == encoder.seen
    assert (bank.vectors[7] == np.frombuffer(b"t007", np.uint8)).all()
    again, encoder = run(folder)
    assert encoder.seen == []
    assert again.entries == bank.entries


def test_an_interrupted_update_ends_with_the_same_bytes(folder):
    run(folder)
    whole = contents(folder.with_name("bank"))
    for die_after in (0, 1, 3):
        path = folder.with_name(f"bank{die_after}")
        with pytest.raises(KilledError):
            run(folder, Encoder(die_after), path)
        # A line that was torn, and rows without a line.
        with (path / "new_tiles.jsonl").open("ab") as file:
            file.write(b'{"file_name": "09.png", "fi')
        with (path / "new_vectors.f32").open("ab") as file:
            file.write(b"x" * 21)
        bank, encoder = run(folder, bank=path)
        assert len(encoder.seen) == 10 - 3 * die_after
        assert contents(path) == whole
        assert len(bank.entries) == 10


def test_only_what_changed_is_encoded(folder):
    run(folder)
    (folder / "03.png").write_bytes(b"news")
    os.utime(folder / "04.png", ns=(1, 1))  # touched
    (folder / "05.png").unlink()
    (folder / "11.png").write_bytes(b"more")
    said = []
    bank, encoder = run(folder, said=said)
    assert encoder.seen == ["03.png", "04.png", "11.png"]
    assert said == ["gallery: 3 tiles to encode, 7 are in the bank, 1 are gone"]
    names = [entry.name for entry in bank.entries]
    assert names == ["00.png", "01.png", "02.png", "03.png", "04.png", *(f"{n:02d}.png" for n in (6, 7, 8, 9, 11))]
    for row, name in zip(bank.vectors, names):
        assert (row == np.frombuffer((folder / name).read_bytes(), np.uint8)).all()
    # As if it had been made anew.
    run(folder, bank=folder.with_name("anew"))
    assert contents(folder.with_name("anew")) == contents(folder.with_name("bank"))


def test_equal_files_are_one_entry(folder):
    for name in ("20.png", "00a.png", "30.png"):
        (folder / name).write_bytes(b"t005")
    bank, _ = run(folder)
    first = next(entry for entry in bank.entries if entry.duplicates)
    assert (first.name, first.duplicates) == ("00a.png", ("05.png", "20.png", "30.png"))
    assert len(bank.vectors) == 10
    (folder / "00a.png").unlink()
    bank, encoder = run(folder)
    assert encoder.seen == []
    assert [entry.name for entry in bank.entries if entry.duplicates] == ["05.png"]
    assert (bank.vectors[5] == np.frombuffer(b"t005", np.uint8)).all()


def test_tiles_that_cannot_be_used(folder):
    for name, data in (("40.png", b"bad"), ("41.png", b"zero"), ("42.png", b"nan")):
        (folder / name).write_bytes(data)
    bank, _ = run(folder)
    assert bank.unusable == {
        "40.png": "damaged",
        "41.png": "its descriptor is zero or not finite",
        "42.png": "its descriptor is zero or not finite",
    }
    assert len(bank.vectors) == 10
    assert np.isfinite(bank.vectors).all()


def test_refusals(folder, tmp_path):
    run(folder)
    with pytest.raises(UserError, match="made with another checkpoint: its descriptors do not fit"):
        run(folder, identity={**IDENTITY, "checkpoint": "c"})
    with pytest.raises(UserError, match="made with another checkpoint and config"):
        run(folder, identity={"checkpoint": "c", "config": "d"})
    with pytest.raises(UserError, match="holds files that are no bank"):
        run(folder, bank=folder)
    path = folder.with_name("bank")
    next(path.glob("vectors-*")).write_bytes(b"1234" * 8)
    with pytest.raises(UserError, match="is damaged; remove it"):
        run(folder)
    (path / "bank.json").write_text("{")
    with pytest.raises(UserError, match=r"bank\.json is damaged"):
        run(folder)
