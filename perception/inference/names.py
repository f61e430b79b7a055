"""Names of the files that a run writes about its sources."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence


def derived_names(names: Sequence[str], suffixes: Collection[str], added: str) -> dict[str, str]:
    """Where files about sources go: under a source's own name if that ends as it should, else under one beside it.

    With `added` `.jpg`, `scan.tif` becomes `scan.tif.jpg`, and `scan.tif.1.jpg` if there is a source of that name.

    Args:
        names: of all sources.
        suffixes: endings, in lower case, of the names that are kept.
        added: the ending that others get.
    """
    taken = {name for name in names if os.path.splitext(name)[1].lower() in suffixes}
    derived = {}
    for name in names:
        result = name
        if name not in taken:
            result, count = f"{name}{added}", 0
            while result in taken:
                count += 1
                result = f"{name}.{count}{added}"
            taken.add(result)
        derived[name] = result
    return derived


def distinct_names(names: Iterable[str]) -> list[str]:
    """The names, with a number added to those that came before."""
    result: dict[str, None] = {}
    for name in names:
        number, unique = 1, name
        while unique in result:
            number += 1
            unique = f"{name}-{number}"
        result[unique] = None
    return list(result)


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """A key for sorting: ``2`` before ``10``."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]
