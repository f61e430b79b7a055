"""Files of several binary parts with a description, checked on reading, without pickle.

Layout: 8 bytes of signature, version (2 bytes), length of the header (4 bytes), the header (JSON, DEFLATE), the parts
one after another, and the SHA-256 of all of it (32 bytes). Numbers are little-endian. The header is an object whose
entry `parts` lists name, coder and length of each part.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perception.engine.errors import UserError

PREFIX = struct.Struct("<8sHI")
DIGEST_BYTES = 32
MAX_HEADER = 1 << 20


@dataclass(frozen=True)
class Blob:
    """A part as it is stored."""

    name: str
    coder: str
    data: bytes


@dataclass(frozen=True)
class FileKind:
    """A kind of such files.

    Args:
        name: what errors call it, such as `.vqrf`.
        signature: 8 bytes that begin a file.
        version: the newest that is read, and the one that is written.
        error: class of errors.
    """

    name: str
    signature: bytes
    version: int
    error: type[UserError]

    def pack(self, header: dict[str, Any], blobs: Sequence[Blob]) -> bytes:
        """The bytes of a file; the header gets its list of parts."""
        listing = [[blob.name, blob.coder, len(blob.data)] for blob in blobs]
        coded = zlib.compress(json.dumps({**header, "parts": listing}).encode(), 9)
        prefix = PREFIX.pack(self.signature, self.version, len(coded))
        body = prefix + coded + b"".join(blob.data for blob in blobs)
        return body + hashlib.sha256(body).digest()

    def read(self, path: Path) -> tuple[dict[str, Any], list[Blob], str]:
        """Header, parts and SHA-256 (hexadecimal) of a file.

        Raises:
            UserError: of the kind's class; the file is missing, foreign, damaged, cut short or newer than this version.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise self.error(f"cannot read {path}: {error.strerror}") from None
        if data[: len(self.signature)] != self.signature:
            raise self.error(f"{path} is not a {self.name} file")
        if len(data) < PREFIX.size + DIGEST_BYTES:
            raise self.error(f"{path} is cut short: it has {len(data)} bytes")
        _, version, header_bytes = PREFIX.unpack_from(data)
        if hashlib.sha256(data[:-DIGEST_BYTES]).digest() != data[-DIGEST_BYTES:]:
            raise self.error(f"{path} is damaged or cut short: its checksum does not match")
        if version > self.version:
            raise self.error(f"{path} has format version {version}; this program reads up to {self.version}: update it")
        body = data[PREFIX.size : -DIGEST_BYTES]
        try:
            header = json.loads(zlib.decompressobj().decompress(body[:header_bytes], MAX_HEADER))
            blobs, position = [], header_bytes
            for name, coder, size in header["parts"]:
                if size < 0 or position + size > len(body):
                    raise ValueError("a part reaches beyond the file")
                blobs.append(Blob(name, coder, body[position : position + size]))
                position += size
            if position != len(body):
                raise ValueError("its parts are not those of this format")
        except (zlib.error, ValueError, KeyError, TypeError) as error:
            raise self.error(f"{path} is damaged: {error}") from None
        return header, blobs, data[-DIGEST_BYTES:].hex()
