"""Memory that is given back to the system; that it is kept is tested with the trainer that wants that."""

import subprocess
import sys

from perception.engine import memory


def test_freed_memory_is_given_back():
    program = (
        "from perception.engine.memory import _held, return_freed_memory\n"
        "blocks = [bytearray(60_000) for _ in range(4000)]\n"
        "kept = blocks[::50]\n"
        "del blocks\n"
        "before = _held('VmRSS')\n"
        "assert return_freed_memory()\n"
        "print(before - _held('VmRSS'), len(kept))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[0]) > 180  # of 229 MiB


def test_steps_come_as_they_were(monkeypatch):
    seen, given_back = [], []
    monkeypatch.setattr(memory, "return_freed_memory", lambda: given_back.append(len(seen)))
    for step in memory.returning_freed_memory(iter("abc")):
        seen.append(step)
    assert seen == ["a", "b", "c"]
    assert given_back == [1, 2, 3]


def test_nothing_is_given_back_without_glibc(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.return_freed_memory() is False
