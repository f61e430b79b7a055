"""A generated data set appears under its name only when it is complete.

Files are made in a hidden folder beside the target, which is renamed at the end. `dataset.json` inside records what the
set was made from, so that making it again is recognised. A folder that this module did not make is never removed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perception.engine.atomic import locked, replacing

RECORD = "dataset.json"


@dataclass(frozen=True)
class Recipe:
    """What determines a data set's files: the family, the version of its code, and its parameters (JSON values)."""

    family: str
    version: int
    params: dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """Where a data set is, what it holds, and whether this call made it (or found it already there)."""

    out: Path
    counts: dict[str, dict[str, int]]
    created: bool


def publish(
    out: Path, recipe: Recipe, fill: Callable[[Path], dict[str, dict[str, int]]], *, overwrite: bool
) -> Summary:
    """Make the data set `out`, or leave it where it is already complete.

    Args:
        out: the data set's folder; its parents are created.
        recipe: what it is made from, recorded in `dataset.json`.
        fill: writes all files into the empty folder it is given and returns counts per split, for instance
            `{"train": {"images": 160, "instances": 800}}`.
        overwrite: replace a data set that was made from another recipe or lost files. A complete one made from the same
            recipe is left in any case.

    Raises:
        FileExistsError: `out` holds something that was not generated, or `overwrite` is false and it is another or an
            incomplete data set.
        OSError: a file cannot be written. Nothing is left behind then, as after any other exception.
    """
    out = Path(out).absolute()
    existing = _find(out, recipe, overwrite)
    if existing is not None:
        return existing
    _make_parents(out)
    _remove_abandoned(out)
    with _scratch_folder(out) as scratch:
        counts = fill(scratch)
        record = {
            "family": recipe.family,
            "version": recipe.version,
            "params": recipe.params,
            "counts": counts,
            "files": _count_files(scratch),
        }
        (scratch / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        # Another process may have finished the same set meanwhile.
        existing = _find(out, recipe, overwrite)
        if existing is not None:
            return existing
        _swap_in(scratch, out)
    return Summary(out, counts, created=True)


def publish_resumable(
    out: Path, recipe: Recipe, fill: Callable[[Path], dict[str, dict[str, int]]], *, overwrite: bool
) -> Summary:
    """The same for long work: `fill` is given the folder of a run that was interrupted again, if its recipe was this.

    It has to know what is done, and to replace what is half done. After an exception, too, the folder stays hidden
    beside `out` for the next run.

    Raises:
        As `publish`, and BlockingIOError: another process is at it.
    """
    out = Path(out).absolute()
    existing = _find(out, recipe, overwrite)
    if existing is not None:
        return existing
    _make_parents(out)
    scratch = out.with_name(f".{out.name}.unfinished")
    scratch.mkdir(exist_ok=True)
    with _locked_for_one(scratch, out):
        existing = _find(out, recipe, overwrite)  # it may have been finished meanwhile
        if existing is not None:
            return existing
        begun = {"family": recipe.family, "version": recipe.version, "params": recipe.params}
        note = scratch / RECORD
        if not note.exists() or json.loads(note.read_text()) != begun:
            for path in scratch.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            with replacing(note) as file:
                file.write(json.dumps(begun).encode())
        counts = fill(scratch)
        record = {**begun, "counts": counts, "files": _count_files(scratch) - 1}
        with replacing(note) as file:
            file.write((json.dumps(record, indent=2) + "\n").encode())
        _swap_in(scratch, out)
    return Summary(out, counts, created=True)


def fill_splits(
    sizes: Mapping[str, int],
    fill_split: Callable[[str, Iterator[int]], dict[str, int]],
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, dict[str, int]]:
    """What `fill` of `publish` does for pictures that are made one by one.

    Args:
        sizes: number of pictures of each split.
        fill_split: makes the pictures of a split whose numbers it is given, and returns counts.
        on_progress: called with the number of finished pictures and their total.
    """
    total, done = sum(sizes.values()), 0

    def numbers(size: int) -> Iterator[int]:
        nonlocal done
        for number in range(size):
            yield number
            done += 1
            if on_progress is not None:
                on_progress(done, total)

    return {split: fill_split(split, numbers(size)) for split, size in sizes.items()}


def _find(out: Path, recipe: Recipe, overwrite: bool) -> Summary | None:
    """The finished data set at `out` if it is the wanted one, `None` if `out` may be written."""
    if not os.path.lexists(out):
        return None
    if not out.is_dir():
        raise FileExistsError(f"{out} exists and is not a folder")
    try:
        record = json.loads((out / RECORD).read_text())
        found = Recipe(record["family"], record["version"], record["params"])
        counts, missing = record["counts"], record["files"] + 1 - _count_files(out)
    except FileNotFoundError:
        if not any(out.iterdir()):
            return None
        raise FileExistsError(
            f"{out} holds files that are not a generated data set (no {RECORD}); name another folder"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise FileExistsError(f"{out / RECORD} is not a record of a generated data set; name another folder") from None
    if found == recipe and missing <= 0:
        return Summary(out, counts, created=False)
    if not overwrite:
        problem = (
            f"lacks {missing} of its files"
            if found == recipe
            else f"holds another data set ({_difference(found, recipe)})"
        )
        raise FileExistsError(f"{out} {problem}; --overwrite replaces it")
    return None


def _count_files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def _difference(found: Recipe, wanted: Recipe) -> str:
    if found.family != wanted.family:
        return f"family {found.family}, not {wanted.family}"
    if found.version != wanted.version:
        return f"made by version {found.version} of {wanted.family}, not {wanted.version}"
    names = sorted(found.params.keys() | wanted.params.keys())
    pairs = [(name, found.params.get(name), wanted.params.get(name)) for name in names]
    return ", ".join(f"{name} {old}, not {new}" for name, old, new in pairs if old != new)


def _make_parents(out: Path) -> None:
    nearest = next(parent for parent in out.parents if parent.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is a file, so {out} cannot be made")
    out.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def _scratch_folder(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, locked while this process lives and gone afterwards unless it was renamed."""
    scratch = out.with_name(f".{out.name}.{os.getpid()}.partial")
    scratch.mkdir()
    try:
        with locked(scratch, wait=True):
            yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_abandoned(out: Path) -> None:
    """Remove what killed processes left: scratch folders of `out` whose lock nobody holds any more."""
    for scratch in out.parent.glob(f".{out.name}.*.partial"):
        with suppress(OSError), locked(scratch, wait=False):
            shutil.rmtree(scratch)


@contextmanager
def _locked_for_one(folder: Path, out: Path) -> Iterator[None]:
    """The lock, or an error where another process holds it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, wait=False))
        except BlockingIOError:
            raise BlockingIOError(f"another process is making {out}; wait for it") from None
        yield


def _swap_in(scratch: Path, out: Path) -> None:
    if not out.exists():
        scratch.rename(out)
        return
    retired = out.with_name(f".{out.name}.{os.getpid()}.old.partial")
    out.rename(retired)
    try:
        scratch.rename(out)
    except BaseException:
        retired.rename(out)
        raise
    shutil.rmtree(retired, ignore_errors=True)
