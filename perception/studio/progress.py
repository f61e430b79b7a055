"""Progress of a long pass between two training steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from perception.radiance.dvgo_stages import ViewRays, Views


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable]:
    """Shows how far a long pass between two steps is; gives a function that takes how much has been done since."""
    columns = (TextColumn("[progress.description]{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda advance=1: progress.advance(task, advance)


def tracked(views: Views, advance: Callable[[int], None]) -> Iterator[ViewRays]:
    """The same chunks of rays; ``advance`` is told the number of rays of each when it is done."""
    for chunk in views:
        yield chunk
        advance(len(chunk[1]))
