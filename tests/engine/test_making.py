"""Command lines that make a data set: how they end, and what they leave of the process."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from perception.engine.errors import UserError
from perception.engine.making import run_maker


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("make", "status", "sentence"),
    [
        (lambda: None, None, ""),
        (lambda: _raise(UserError("no scene at x")), 1, "make: no scene at x\n"),
        (lambda: _raise(ValueError("size 0 is below 1")), 1, "make: size 0 is below 1\n"),
        (lambda: _raise(OSError(errno.ENOSPC, "No space left on device")), 1,
         "make: cannot write out: No space left on device\n"),
        (lambda: _raise(OSError(errno.EROFS, "Read-only file system", "out/a.png")), 1,
         "make: cannot write out/a.png: Read-only file system\n"),
        (lambda: _raise(KeyboardInterrupt()), 130, "make: interrupted; nothing was written\n"),
        (lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(60)), 143, ""),
    ],
    ids=["well", "user", "value", "full", "read-only", "interrupted", "terminated"],
)  # fmt: skip
def test_every_end_is_a_status_and_at_most_a_sentence(make, status, sentence, capsys):
    before = signal.getsignal(signal.SIGTERM)
    if status is None:
        run_maker("make", Path("out"), make)
    else:
        with pytest.raises(SystemExit) as end:
            run_maker("make", Path("out"), make)
        assert end.value.code == status
    assert capsys.readouterr().err == sentence
    assert signal.getsignal(signal.SIGTERM) is before
