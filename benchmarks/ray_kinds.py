"""What `ray_engine.py` runs: a kind of folder whose model burns or sleeps for a time, and an actor without torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from perception.inference.engines.member import Event, Finished, Ran, Shard

RECORD = {
    "detections": [
        {"bbox": [17.25 * n, 9.5, 120.125, 64.75], "score": 0.8125, "label": n % 3, "name": "plane"} for n in range(10)
    ]
}
"""As long as a line with ten boxes."""


def sleeper(shared: Any) -> Sleeper:
    """Makes a worker."""
    return Sleeper()


class Sleeper:
    """A worker that reads and writes nothing, and yields a line after as many seconds as a shard's records say."""

    remembers = False

    def events(self, shards: Iterator[Shard], tell: Callable[[Event], None]) -> Iterator[Event]:
        due = time.monotonic()
        for shard in shards:
            for place, source in enumerate(shard.sources):
                due = max(due, time.monotonic() - 0.1) + shard.records["seconds"]
                if due - time.monotonic() > 0.002:
                    time.sleep(due - time.monotonic())
                yield Ran(shard.number, place, {"file_name": source.name, "file_size": 0, **RECORD})
            yield Finished(shard.number)
