"""Which files of a folder are to be looked at, in an order that never depends on the file system."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Source:
    """A named group of files that are run together: an image; six images and their calibration; a point cloud.

    Attributes:
        name: of this group alone; for a single file its path relative to the folder, with `/` on every system.
        files: what is read; a change of any of them makes an earlier result void.
        file_size: bytes of all of them.
        sequence: sources of one sequence follow each other, and their results may depend on those before.
        details: what the reader noted about the group; small, because it travels to the worker processes.
    """

    name: str
    files: tuple[Path, ...]
    file_size: int
    sequence: str = ""
    details: Any = None

    @classmethod
    def of_file(cls, name: str, path: Path, file_size: int) -> Source:
        """A source that is one file."""
        return cls(name, (path,), file_size)

    @property
    def path(self) -> Path:
        """The file that gives the source its name, which is the first."""
        return self.files[0]

    def modified(self) -> int:
        """When the last of the files changed, in nanoseconds."""
        return max(path.stat().st_mtime_ns for path in self.files)


@dataclass
class Scan:
    """What a folder holds: what to run, what cannot be run (name to reason), files that are not asked for."""

    sources: list[Source] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)


def scan(
    folder: str | Path, suffixes: Collection[str], patterns: Sequence[str] = (), exclude: str | Path | None = None
) -> Scan:
    """Walks `folder` and sorts what it finds by relative path; each file is a source.

    Symbolic links are followed, also to folders, but never into a folder that is being walked already. Hidden files
    and folders (leading dot) are left out.

    Args:
        folder: a folder, or a single file, which is taken whatever its name.
        suffixes: endings, in lower case and with their dot, of the files to take.
        patterns: shell patterns that count instead of the suffixes; a file is taken when its name or its relative path
            matches one.
        exclude: a folder that is not entered (the output folder, which may lie inside).

    Raises:
        FileNotFoundError: `folder` does not exist.
    """
    folder = Path(folder)
    found = Scan()
    if not folder.is_dir():
        status = folder.stat()
        if stat.S_ISREG(status.st_mode):
            found.sources.append(Source.of_file(folder.name, folder, status.st_size))
        else:
            found.skipped[folder.name] = "not a regular file"
        return found
    excluded = None if exclude is None else os.path.realpath(exclude)
    for name, path in _walk(folder, "", (os.path.realpath(folder),), excluded, found.skipped):
        if not _wanted(name, suffixes, patterns):
            found.ignored.append(name)
            continue
        try:
            status = path.stat()
        except OSError as error:
            found.skipped[name] = "broken symbolic link" if path.is_symlink() else str(error.strerror)
            continue
        if stat.S_ISREG(status.st_mode):
            found.sources.append(Source.of_file(name, path, status.st_size))
        else:
            found.skipped[name] = "not a regular file"
    found.sources.sort(key=lambda source: source.name)
    found.ignored.sort()
    return found


def _wanted(name: str, suffixes: Collection[str], patterns: Sequence[str]) -> bool:
    basename = name.rpartition("/")[2]
    if not patterns:
        return os.path.splitext(basename)[1].lower() in suffixes
    return any(fnmatchcase(basename, pattern) or fnmatchcase(name, pattern) for pattern in patterns)


def _walk(
    folder: Path, prefix: str, ancestors: tuple[str, ...], excluded: str | None, skipped: dict[str, str]
) -> Iterator[tuple[str, Path]]:
    """Yields relative names and paths of everything that is not a folder."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        skipped[prefix or "."] = f"folder cannot be listed ({error.strerror})"
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            yield prefix + entry.name, Path(entry.path)
            continue
        real = os.path.realpath(entry.path)
        if real != excluded and real not in ancestors:
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", (*ancestors, real), excluded, skipped)
