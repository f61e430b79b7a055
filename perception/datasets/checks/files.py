"""Image files against the names and sizes that annotations give them."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote

from perception.datasets.images import UnreadableImageError, orientation_of_file, read_header

from .report import Findings, some

SAMPLE = 256
"""So many headers are read of a larger set."""


def look_for_files(folder: str, names: Sequence[str], findings: Findings, what: str = "images") -> list[int]:
    """Which of the named files are there, by listing folders; for the others, says what was probably meant.

    Returns:
        The places of the names whose files are there.
    """
    listings: dict[str, frozenset[str]] = {}

    def is_there(name: str) -> bool:
        place, base = os.path.split(os.path.join(folder, name))
        if place not in listings:
            listings[place] = _listing(place)
        return base in listings[place]

    there = [place for place, name in enumerate(names) if is_there(name)]
    if len(there) < len(names):
        known = set(there)
        missing = [name for place, name in enumerate(names) if place not in known]
        findings.error(
            f"{len(missing)} of {len(names)} {what} are missing in {folder or '.'}: {some(missing)}",
            _advice(folder, missing, is_there),
        )
    return there


def look_at_headers(
    folder: str,
    names: Sequence[str],
    sizes: Sequence[tuple[float, float]],
    findings: Findings,
    limit: int = SAMPLE,
    what: str = "images",
) -> dict[int, tuple[int, int]]:
    """Whether files are images and as large as annotations say; of more than ``limit``, a regular sample.

    Args:
        folder, names: the files.
        sizes: (width, height) of each as annotated; 0 where that is unknown.

    Returns:
        Width and height of those that were looked at, by place.
    """
    places = range(0, len(names), max(1, -(-len(names) // limit)))
    seen, unreadable, other, turned = {}, [], [], []
    for place in places:
        path = os.path.join(folder, names[place])
        try:
            header = read_header(path)
        except UnreadableImageError as error:
            unreadable.append(f"{names[place]} ({error})")
            continue
        size = (header.width, header.height)
        seen[place] = size
        if all(sizes[place]) and size != tuple(sizes[place]):
            width, height = map(int, sizes[place])
            other.append(f"{names[place]} has {size[0]} x {size[1]} pixels, not {width} x {height}")
            if size == (height, width) and orientation_of_file(path) > 4:
                turned.append(names[place])
    of_those = f"of {len(places)} {what}" + (" that were looked at" if len(places) < len(names) else "")
    if unreadable:
        findings.error(f"{len(unreadable)} {of_those} cannot be read: {some(unreadable)}", "mend or remove them")
    if len(other) > len(turned):
        findings.error(
            f"{len(other)} {of_those} are of another size than the annotations say: {some(other)}",
            "boxes would lie elsewhere: use the images that were annotated, or correct width, height and the boxes",
        )
    elif turned:
        findings.error(
            f"{len(turned)} {of_those} are turned by their EXIF orientation, and annotations are of the unturned "
            f"picture: {some(turned)}",
            "images are read upright; turn the annotations, or store the images without that tag",
        )
    return seen


def _listing(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder or "."))
    except OSError:
        return frozenset()


_REPAIRS: tuple[tuple[Callable[[str], str], str], ...] = (
    (unquote, "names are percent-encoded (as in URLs) in the annotations"),
    (lambda name: unicodedata.normalize("NFC", name), "names are of another Unicode form (NFD) in the annotations"),
    (lambda name: unicodedata.normalize("NFD", name), "names are of another Unicode form (NFC) in the annotations"),
    (lambda name: PurePosixPath(name).name, "annotations give folders, but the files lie directly in the folder"),
    (lambda name: "/".join(PurePosixPath(name).parts[1:]), "annotations give one more folder than there is"),
    (str.strip, "names have spaces around them in the annotations"),
    (lambda name: unquote(name.rsplit("/", 1)[-1]), "annotations give folders and percent-encoded names"),
)


def _advice(folder: str, missing: Sequence[str], is_there: Callable[[str], bool]) -> str:
    """What most of a few missing names have in common."""
    for repair, reason in _REPAIRS:
        found = [(name, repair(name)) for name in missing[:20] if repair(name) != name and is_there(repair(name))]
        if 2 * len(found) >= len(missing[:20]):
            name, meant = found[0]
            return f"{reason}: {name!r} is there as {meant!r}; correct the names, or data_prefix"
    by_stem: dict[tuple[str, str], list[str]] = defaultdict(list)
    for place in {os.path.dirname(os.path.join(folder, name)) for name in missing[:20]}:
        for name in _listing(place):
            by_stem[place, os.path.splitext(name)[0].casefold()].append(name)
    found = []
    for name in missing[:20]:
        place, base = os.path.split(os.path.join(folder, name))
        found += [(base, other) for other in by_stem[place, os.path.splitext(base)[0].casefold()]][:1]
    if found:
        base, other = found[0]
        how = "case" if base.casefold() == other.casefold() else "suffix"
        return f"there are files that differ by {how}: {other} instead of {base}; correct the names"
    if any(name.startswith("/") or name[1:3] == ":/" for name in missing):
        return "names are absolute paths, of another machine it seems; make them relative to data_prefix"
    return "put them there, correct data_prefix, or take them out of the annotations"
