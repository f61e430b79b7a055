"""Queries on a run's page."""

from __future__ import annotations

from perception.inference.showing import Showing
from perception.inference.writing import Record


class MatchesShowing(Showing):
    """The picture of a query and its tiles; queries whose best tile is least similar come first."""

    named_by_files = True
    measure = "similarity of the best tile"

    def measured(self, record: Record) -> float | None:
        return next((match["similarity"] for match in record["matches"]), None)
