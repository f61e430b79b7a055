"""Progress on a terminal and in a log."""

import io

from perception.inference import progress
from perception.inference.progress import Progress


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    stream = io.StringIO()
    counter = Progress(50, 20, "image", "images", stream, interval=10)
    for _ in range(25):
        now[0] += 1
        counter.add()
    counter.close()
    # Images of an earlier run count as done, but not into the rate.
    assert stream.getvalue().splitlines() == ["30/50 images, 1.0 images/s", "40/50 images, 1.0 images/s"]


def test_a_terminal_gets_a_bar():
    stream = _Terminal()
    counter = Progress(4, 1, "cloud", "clouds", stream)
    counter.add(3)
    counter.close()
    assert "4/4" in stream.getvalue()
    assert "cloud/s" in stream.getvalue()
