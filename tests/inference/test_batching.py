"""Who shares a batch."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from perception.inference import batching
from perception.inference.batching import batches, prefetch
from perception.inference.images.decoding import Decoded
from perception.inference.reading import Refused
from perception.inference.scan import Source


@dataclass
class _Prepared:
    shape: str


def _image(name, pixels=12):
    return Source.of_file(name, Path(name), 1), Decoded(np.zeros((pixels // 3, 1, 3), np.uint8), 1, 1, 1)


def _prepare(source, decoded):
    if "odd" in source.name:
        raise ValueError("too thin")
    return _Prepared(source.name[0])


def _nbytes(decoded):
    return decoded.pixels.nbytes


def _form(chunks, size):
    skipped = {}
    formed = batches(chunks, _prepare, _nbytes, size, lambda source, reason: skipped.update({source.name: reason}))
    return [[item.source.name for item in batch] for batch in formed], skipped


def test_a_batch_holds_images_of_one_shape():
    chunk = [_image(name) for name in ("a1", "b1", "a2", "a3", "b2", "c1", "a4", "a5")]
    assert _form([chunk], 2) == ([["a1", "a2"], ["b1", "b2"], ["a3", "a4"], ["c1"], ["a5"]], {})
    assert _form([chunk], 1)[0] == [["a1"], ["b1"], ["a2"], ["a3"], ["b2"], ["c1"], ["a4"], ["a5"]]


def test_a_batch_ends_with_its_chunk():
    chunks = [[_image("a1")], [_image("a2"), _image("b1")], [_image("a3")]]
    assert _form(chunks, 4)[0] == [["a1"], ["a2"], ["b1"], ["a3"]]


def test_files_without_an_image_are_told_and_leave_no_gap():
    chunk = [_image("a1"), (Source.of_file("bad", Path("bad"), 1), Refused("empty file")), _image("odd"), _image("a2")]
    formed, skipped = _form([chunk], 2)
    assert formed == [["a1", "a2"]]
    assert skipped == {"bad": "empty file", "odd": "the test pipeline fails on it: ValueError: too thin"}


def test_large_images_do_not_wait_for_company(monkeypatch):
    monkeypatch.setattr(batching, "WAITING_BYTES", 100)
    chunk = [_image("a1", 60), _image("b1", 60), _image("a2", 60), _image("c1", 12)]
    assert _form([chunk], 4)[0] == [["a1"], ["b1"], ["a2"], ["c1"]]


def test_prefetch_keeps_order_and_runs_ahead():
    started = threading.Event()

    def items():
        yield 1
        yield 2
        started.set()
        yield 3

    iterator = prefetch(items(), 1)
    assert next(iterator) == 1
    assert started.wait(120)  # nobody asked for the second yet
    assert list(iterator) == [2, 3]


def test_prefetch_passes_errors_on():
    def items():
        yield 1
        raise ValueError("broken")

    iterator = prefetch(items(), 1)
    assert next(iterator) == 1
    with pytest.raises(ValueError, match="broken"):
        next(iterator)


def test_prefetch_ends_when_it_is_closed():
    iterator = prefetch(iter(int, 1), 2)
    next(iterator)
    iterator.close()
    over = time.monotonic() + 120
    while any(thread.name == "prefetch" for thread in threading.enumerate()):
        assert time.monotonic() < over, "the thread goes on"
        time.sleep(0.02)
