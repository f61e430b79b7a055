"""Names of files in the folders of a data set, and how a message lists them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from perception.engine.errors import UserError

_LISTED = 5


def names_below(folder: str | os.PathLike[str]) -> list[str]:
    """Relative names, with `/`, of all files below a folder, sorted; hidden ones (leading dot) are left out.

    Links to folders are followed. One listing of every folder, and no look at single files: large data sets lie on
    slow disks.

    Raises:
        UserError: the folder cannot be listed.
    """
    root, names = os.fspath(folder), []

    def fail(error: OSError) -> None:
        raise UserError(f"folder {error.filename} cannot be listed: {error.strerror}") from error

    for place, folders, files in os.walk(root, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = os.path.relpath(place, root).replace(os.sep, "/")
        prefix = "" if prefix == "." else prefix + "/"
        names += [prefix + name for name in files if not name.startswith(".")]
    return sorted(names)


def unique_stems(folder: str | os.PathLike[str], names: Sequence[str]) -> dict[str, str]:
    """Names by what stands before their suffix.

    Raises:
        UserError: two of them differ by their suffix alone, so that a label file could belong to either.
    """
    by_stem: dict[str, str] = {}
    for name in names:
        stem = os.path.splitext(name)[0]
        if stem in by_stem:
            raise UserError(
                f"{Path(folder, by_stem[stem])} and {Path(folder, name).name} have the same name but for the suffix, "
                "so that their labels would be those of both; rename or remove one"
            )
        by_stem[stem] = name
    return by_stem


def listed(names: Sequence[object]) -> str:
    """The first few names, for a message."""
    return ", ".join(map(str, names[:_LISTED])) + (", ..." if len(names) > _LISTED else "")
