"""Memory that is given back to the system; that it is kept is tested with the trainer that wants that."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from perception.engine import hooks, memory


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


@pytest.mark.parametrize(("device", "calls"), [("cpu", 1), ("meta", 0)])
def test_runs_keep_freed_memory_on_a_cpu_alone(monkeypatch, device, calls):
    called = []
    monkeypatch.setattr(hooks, "keep_freed_memory", lambda: called.append(True))
    hooks.KeepFreedMemoryHook().before_run(SimpleNamespace(model=torch.nn.Linear(2, 2, device=device)))
    assert len(called) == calls
