"""PCD files of the Point Cloud Library: ascii, binary and compressed, with any fields.

Open3D and others drop fields that they do not know or stumble over ROS's padding fields; here the header is followed.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from .cloud import Cloud, UnreadableCloudError, from_columns

_TYPES = {"F": "f", "I": "i", "U": "u"}
_LONGEST_HEADER = 64 * 1024


@dataclass(frozen=True)
class _Header:
    fields: list[str]
    sizes: list[int]
    types: list[str]
    counts: list[int]
    points: int
    form: str
    length: int  # bytes

    def dtype(self) -> np.dtype:
        """Of a point in the order of the header. Names repeat (ROS pads with fields called ``_``): numbered."""
        entries = []
        for number, (size, kind, count) in enumerate(zip(self.sizes, self.types, self.counts, strict=True)):
            if kind not in _TYPES or size not in (1, 2, 4, 8):
                raise UnreadableCloudError(f"its field {self.fields[number]} is of type {kind}{size}")
            entries.append((f"f{number}", f"<{_TYPES[kind]}{size}", (count,)))
        return np.dtype(entries)


def is_pcd(start: bytes) -> bool:
    """Whether a file that starts so is a PCD file."""
    return start.startswith((b"# .PCD", b"VERSION", b"FIELDS"))


def read_pcd(data: bytes) -> Cloud:
    """The points of a file.

    Raises:
        UnreadableCloudError: the header makes no sense, or promises more than the file holds.
    """
    header = _header(data)
    body = data[header.length :]
    dtype = header.dtype()
    if header.form == "ascii":
        rows = _ascii(body, header, dtype)
    elif header.form == "binary":
        rows = _binary(body, header, dtype)
    elif header.form == "binary_compressed":
        rows = _compressed(body, header, dtype)
    else:
        raise UnreadableCloudError(f"its data are {header.form!r}, which PCD does not know")
    names = list(header.fields)
    columns = {
        name: rows[f"f{number}"][:, 0]
        for number, name in enumerate(names)
        if name != "_" and header.counts[number] == 1
    }
    return from_columns(columns)


def _header(data: bytes) -> _Header:
    entries: dict[str, list[str]] = {}
    stream = io.BytesIO(data[:_LONGEST_HEADER])
    while line := stream.readline():
        words = line.decode("ascii", "replace").split("#")[0].split()
        if words:
            entries[words[0].upper()] = words[1:]
            if words[0].upper() == "DATA":
                break
    try:
        fields = entries["FIELDS"]
        sizes = [int(word) for word in entries["SIZE"]]
        counts = [int(word) for word in entries.get("COUNT", ["1"] * len(fields))]
        points = (
            int(entries["POINTS"][0]) if "POINTS" in entries else int(entries["WIDTH"][0]) * int(entries["HEIGHT"][0])
        )
        types, form = [word.upper() for word in entries["TYPE"]], entries["DATA"][0].lower()
    except (KeyError, IndexError, ValueError) as error:
        raise UnreadableCloudError(f"its header has no proper {str(error).strip(chr(39))}") from error
    if not len(fields) == len(sizes) == len(types) == len(counts):
        raise UnreadableCloudError(
            f"its header names {len(fields)} fields, {len(sizes)} sizes, {len(types)} types and {len(counts)} counts"
        )
    return _Header(fields, sizes, types, counts, points, form, stream.tell())


def _short(header: _Header, found: int) -> UnreadableCloudError:
    return UnreadableCloudError(f"its header promises {header.points} points, it holds {found}")


def _ascii(body: bytes, header: _Header, dtype: np.dtype) -> np.ndarray:
    lines = [line for line in body.splitlines() if line.strip()][: header.points]
    if len(lines) < header.points:
        raise _short(header, len(lines))
    width = sum(header.counts)
    rows = np.zeros(header.points, dtype)
    for number, line in enumerate(lines):
        words = line.split()
        if len(words) != width:
            raise UnreadableCloudError(f"its point {number + 1} has {len(words)} values instead of {width}")
        place = 0
        for field, count in enumerate(header.counts):
            kind = float if header.types[field] == "F" else int
            try:
                rows[f"f{field}"][number] = [kind(word) for word in words[place : place + count]]
            except (ValueError, OverflowError) as error:
                raise UnreadableCloudError(
                    f"its point {number + 1} has the value {words[place].decode('ascii', 'replace')}"
                ) from error
            place += count
    return rows


def _binary(body: bytes, header: _Header, dtype: np.dtype) -> np.ndarray:
    whole = len(body) // dtype.itemsize
    if whole < header.points:
        raise _short(header, whole)
    return np.frombuffer(body, dtype, header.points)  # bytes beyond them are no points


def _compressed(body: bytes, header: _Header, dtype: np.dtype) -> np.ndarray:
    if len(body) < 8:
        raise _short(header, 0)
    packed, size = (int(number) for number in np.frombuffer(body, "<u4", 2))
    if size != dtype.itemsize * header.points or len(body) < 8 + packed:
        raise _short(header, min(size, len(body)) // max(dtype.itemsize, 1))
    plain = _decompress(body[8 : 8 + packed], size)
    rows, place = np.zeros(header.points, dtype), 0
    for name in dtype.names or ():  # field by field
        part = dtype[name]
        length = part.itemsize * header.points
        rows[name] = np.frombuffer(plain, part.base, header.points * part.shape[0], place).reshape(header.points, -1)
        place += length
    return rows


def _decompress(packed: bytes, size: int) -> bytes:
    """LZF (Marc Lehmann's format): runs of bytes as they are, and copies of what came before."""
    plain, place = bytearray(), 0
    try:
        while place < len(packed):
            control = packed[place]
            place += 1
            if control < 32:
                plain += packed[place : place + control + 1]
                place += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += packed[place]
                place += 1
            start = len(plain) - ((control & 31) << 8) - packed[place] - 1
            place += 1
            if start < 0:
                raise UnreadableCloudError("its compressed data are damaged")
            length += 2
            while length:  # what is copied may reach into what it makes
                piece = plain[start : start + length]
                plain += piece
                start, length = start + len(piece), length - len(piece)
    except IndexError as error:
        raise UnreadableCloudError("its compressed data are cut off") from error
    if len(plain) != size:
        raise UnreadableCloudError("its compressed data are damaged")
    return bytes(plain)
