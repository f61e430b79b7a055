"""Worker processes: order, death, and what they leave behind."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from perception.inference.images.decoding import InputSize
from perception.inference.images.reader import ImageReader
from perception.inference.pool import WorkerPool
from perception.inference.reading import Refused
from perception.inference.scan import Source
from tests.inference import workers


def _dead(item):
    return f"{item} died"


def test_results_come_in_order_and_the_dead_are_named():
    with closing(WorkerPool(2)) as pool:
        results = list(pool.imap(workers.square, [1, 2, 3, 13, 4, 5, 13, 6], ahead=4, on_death=_dead))
        assert results == [(1, 1), (2, 4), (3, 9), (13, "13 died"), (4, 16), (5, 25), (13, "13 died"), (6, 36)]
        # The pool is as good as new.
        assert list(pool.imap(workers.square, [7], ahead=1, on_death=_dead)) == [(7, 49)]


def test_an_item_that_died_in_company_gets_a_second_chance_alone(tmp_path):
    with closing(WorkerPool(1)) as pool:
        mark = str(tmp_path / "mark")
        assert list(pool.imap(workers.die_once, [mark], ahead=1, on_death=_dead)) == [(mark, "survived")]


def test_no_more_items_are_taken_than_asked_for():
    taken = []

    def numbers():
        for number in range(10):
            taken.append(number)
            yield number

    with closing(WorkerPool(1)) as pool:
        results = pool.imap(workers.square, numbers(), ahead=3, on_death=_dead)
        next(results)
        assert taken == [0, 1, 2]
        next(results)
        assert taken == [0, 1, 2, 3]


def test_alone_runs_and_survives_a_death():
    with closing(WorkerPool(1)) as pool:
        assert pool.alone(workers.square, 13, _dead) == "13 died"
        assert pool.alone(workers.square, 3, _dead) == 9


def test_decoding_processes_stay_small(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    source = Source.of_file("a.png", tmp_path / "a.png", 0)
    function = partial(ImageReader(InputSize(64, 64, True)).read, alone=False)
    with closing(WorkerPool(1)) as pool:
        assert list(pool.imap(function, [source], 1, _dead)) == [(source, Refused("empty file"))]
        assert list(pool.imap(workers.loaded_modules, [None], 1, _dead)) == [(None, [])]


ORPHANS = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tests.inference import workers
from perception.inference.pool import WorkerPool
if __name__ == "__main__":
    pool = WorkerPool(2)
    results = pool.imap(workers.slow_square, iter(int, 1), 4, str)
    next(results)
    print(*[process.pid for process in pool._pool._processes.values()], flush=True)
    for _ in results:
        pass
"""


def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(ORPHANS)
    with subprocess.Popen(
        [sys.executable, script, Path(workers.__file__).parents[2]], stdout=subprocess.PIPE, text=True
    ) as parent:
        children = [int(word) for word in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 120
    while any(_alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(child) for child in children)


def test_processes_that_cannot_start_are_an_error(monkeypatch):
    monkeypatch.setattr("perception.inference.pool._begin", os.abort)
    pool = WorkerPool(1)
    with closing(pool), pytest.raises(RuntimeError, match="worker processes die at their start"):
        list(pool.imap(workers.square, [1], 1, _dead))


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
