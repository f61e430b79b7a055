"""Files that are either whole or not there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import UserError


class OutputError(UserError, OSError):
    """A file or folder cannot be written; the message is one sentence that says why."""


@contextmanager
def replacing(path: str | Path, temporary: Path | None = None) -> Iterator[BinaryIO]:
    """Opens a temporary file for writing and renames it to `path` once all is written.

    It is a hidden neighbour of `path` whose name is the same every time: what a killed run left behind is overwritten
    by the next.

    Args:
        path: the file.
        temporary: another temporary file, of the same file system, where several processes may write the same file.

    Raises:
        OutputError: there is no room, no permission, no such folder, or `path` is something else than a file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {path}: it is {'a folder' if path.is_dir() else 'not an ordinary file'}")
    if temporary is None:
        temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        _remove(temporary)
        if error.filename in (None, str(temporary)) and error.strerror:  # not of a file that is read meanwhile
            raise OutputError(f"cannot write {path}: {error.strerror}") from error
        raise
    except BaseException:
        _remove(temporary)
        raise


@contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of a folder; the system releases it when the process dies.

    Raises:
        BlockingIOError: another process holds it, and this one does not ``wait``.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)


def output_folder(path: str | Path) -> Path:
    """Make a folder for results, with its parents, unless it is there.

    Raises:
        OutputError: something else has its name, or it may not be made.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        taken = next((place for place in (path, *path.parents) if place.exists() and not place.is_dir()), None)
        reason = f"{taken} is a file, not a folder" if taken else (error.strerror or str(error))
        raise OutputError(f"cannot write into {path}: {reason}") from error
    return path


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # it was never made: its folder is a file, or may not be read
        return
