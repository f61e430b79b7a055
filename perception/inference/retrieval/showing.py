"""Queries on a run's page."""

from __future__ import annotations

from collections.abc import Iterable

from perception.inference.showing import Showing
from perception.inference.writing import Record

BEST = "best tile"


class MatchesShowing(Showing):
    """The picture of a query and its tiles; its score is the similarity of the best tile."""

    named_by_files = True

    def objects(self, record: Record) -> Iterable[tuple[str, float | None]]:
        for match in record["matches"][:1]:
            yield BEST, match["similarity"]
