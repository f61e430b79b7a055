"""A stream on disk: a folder with the base, one file per later frame, and key frames where they are wanted.

`base.srf` is the field of frame 0, `frame_000001.srf` what makes the field of frame 1 of it, `key_000010.srf` the whole
field of frame 10. Each file of a frame holds the SHA-256 of the file before it, and a key frame that of its frame's
file, so that what does not belong together is found out. docs/streams.md describes the format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from perception.engine.atomic import output_folder, replacing
from perception.engine.framed_file import Blob, FileKind
from perception.radiance.entropy_coding import CorruptStream
from projects.streamrf.coding import Size, decode_delta, decode_field, encode_delta, encode_field
from projects.streamrf.delta import BaseModel, FieldState, FrameDelta, Rendering, StreamError, decode_frame

BASE, FRAME, KEY = "base.srf", "frame_{:06d}.srf", "key_{:06d}.srf"
PATTERN = re.compile(r"(frame|key)_(\d{6,})\.srf")
KIND = FileKind("StreamRF stream", b"\x89SRF\r\n\x1a\n", 2, StreamError)
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Part:
    """One line of a file's report."""

    name: str
    coder: str
    bytes: int


class StreamWriter:
    """Adds frames to a stream, in order; see :meth:`create` and :meth:`resume`."""

    def __init__(self, folder: Path, frame: int, state: FieldState, digest: str, key_every: int, half: bool):
        self.folder, self.frame, self.key_every, self.half = folder, frame, key_every, half
        self._state, self._digest = state, digest

    @classmethod
    def create(cls, folder: Path, base: BaseModel, key_every: int = 0) -> StreamWriter:
        """Begin a stream; frames that a killed run left of the same one are removed.

        Args:
            folder: to make.
            base: frame 0.
            key_every: frames from one key frame to the next; 0 for none.

        Raises:
            StreamError: the folder has a stream with another base, or a number of it is not finite.
        """
        folder = output_folder(folder)
        if key_every < 0:
            raise StreamError(f"key frames cannot come every {key_every} frames; 0 leaves them out")
        header = {
            "kind": "base",
            "half": base.half,
            "key_every": key_every,
            "rendering": asdict(base.rendering),
            "cameras": base.cameras,
            "notes": base.notes,
        }
        data = _pack_field(header, base.state, f"{folder / BASE}")
        if (folder / BASE).exists():
            if (folder / BASE).read_bytes() != data:
                raise StreamError(f"{folder} holds a stream with another base: name another folder, or remove it")
        elif any(PATTERN.fullmatch(path.name) for path in folder.iterdir()):
            raise StreamError(f"{folder} holds frames without their base: name another folder, or remove them")
        else:
            _write(folder / BASE, data)
        _remove_after(folder, 0)
        return cls(folder, 0, base.state, data[-DIGEST_BYTES:].hex(), key_every, base.half)

    @classmethod
    def resume(cls, folder: Path, frame: int) -> StreamWriter:
        """Go on after a frame; later ones, and what a killed run left half written, are removed.

        Raises:
            StreamError: the stream up to this frame is not there, or damaged.
        """
        folder = Path(folder)
        reader = StreamReader(folder)
        if frame >= reader.frames or frame < 0:
            raise StreamError(f"{folder} has the frames 0 to {reader.frames - 1}; it cannot go on after frame {frame}")
        state = reader.decode(frame)
        _remove_after(folder, frame)
        return cls(folder, frame, state, reader.digest(frame), reader.key_every, reader.base.half)

    def add(self, delta: FrameDelta, state: FieldState) -> int:
        """Write the next frame, and the key frame where one is due. The files are whole when this returns.

        Args:
            delta: of the frame.
            state: what :func:`~projects.streamrf.delta.decode_frame` makes of it.

        Returns:
            Bytes of the frame's file, without those of a key frame.

        Raises:
            StreamError: it is not the next frame, of another precision, or a number of it is not finite.
        """
        if delta.frame != self.frame + 1:
            raise StreamError(f"after frame {self.frame} comes frame {self.frame + 1}, not {delta.frame}")
        if delta.half != self.half:
            raise StreamError(f"frame {delta.frame} is of another precision than the base")
        path = self.folder / FRAME.format(delta.frame)
        counts, blobs = _finite(f"frame {delta.frame}", lambda: encode_delta(self._state, delta))
        header = {"kind": "delta", "frame": delta.frame, "parent": self._digest, "half": delta.half, **counts}
        if counts["n_next"] != len(state.sh):
            raise StreamError(f"frame {delta.frame} leads to {counts['n_next']} voxels, not {len(state.sh)}")
        data = KIND.pack(header, blobs)
        digest = data[-DIGEST_BYTES:].hex()
        if self.key_every and delta.frame % self.key_every == 0:
            # Before the frame: a stream whose last frame is due for a key frame then always has it.
            key = {"kind": "key", "frame": delta.frame, "chain": digest}
            _write(self.folder / KEY.format(delta.frame), _pack_field(key, state, f"frame {delta.frame}"))
        _write(path, data)
        self.frame, self._state, self._digest = delta.frame, state, digest
        return len(data)


class StreamReader:
    """Reads a stream; every count and checksum is checked, and a fault ends in one sentence.

    Attributes:
        base: the field of frame 0.
        frames: their number, the base included.
        keys: numbers of frames that have a key frame.
        key_every: frames from one key frame to the next; 0 for none.

    Args:
        folder: of the stream.
        remembered: decoded fields that are kept, from the nearest of which others are decoded.

    Raises:
        StreamError: there is no stream, its base is damaged, or a frame is missing between others.
    """

    def __init__(self, folder: Path, remembered: int = 1):
        self.folder, self._remembered = Path(folder), remembered
        folder = self.folder
        if not (folder / BASE).is_file():
            raise StreamError(f"there is no stream in {folder}: it has no {BASE}")
        header, blobs, self._base_digest = KIND.read(folder / BASE)
        with _damaged(folder / BASE):
            _expect(header, "base")
            state, half = _field(header, blobs), header["half"]
            rendering = dict(header["rendering"])
            rendering["ndc"] = None if rendering["ndc"] is None else tuple(map(float, rendering["ndc"]))
            self.base = BaseModel(state, bool(half), Rendering(**rendering), header["cameras"], dict(header["notes"]))
            self.key_every = int(header["key_every"])
        names = [match for path in folder.iterdir() if (match := PATTERN.fullmatch(path.name))]
        numbers = sorted(int(match[2]) for match in names if match[1] == "frame")
        self.keys = sorted(int(match[2]) for match in names if match[1] == "key")
        self.frames = len(numbers) + 1
        if numbers and numbers[-1] != len(numbers):
            missing = next(number for number in range(1, numbers[-1]) if number not in set(numbers))
            raise StreamError(f"{folder} has frames up to {numbers[-1]}, but not {FRAME.format(missing)}")
        self.keys = [key for key in self.keys if key < self.frames]
        self._recent: dict[int, FieldState] = {}  # the one asked for last stands last

    def delta(self, frame: int) -> FrameDelta:
        """What makes the field of a frame of the one before it.

        Raises:
            StreamError: there is no such frame, or it or what it builds on is damaged.
        """
        if not 1 <= frame < self.frames:
            raise StreamError(f"{self.folder} has no frame {frame} after its base, but {self.frames - 1} of them")
        return self._delta(frame, self.decode(frame - 1))

    def decode(self, frame: int) -> FieldState:
        """The field of a frame, from the nearest field before it that is a key frame or remembered.

        Raises:
            StreamError: there is no such frame, or it or what it builds on is damaged.
        """
        if not 0 <= frame < self.frames:
            raise StreamError(f"{self.folder} has the frames 0 to {self.frames - 1}, not {frame}")
        start = max((number for number in self._recent if number <= frame), default=0)
        state = self._recent.get(start, self.base.state)
        key = max((key for key in self.keys if key <= frame), default=0)
        if key > start:
            start, state = key, self.key(key)
        for number in range(start + 1, frame + 1):
            state = decode_frame(state, self._delta(number, state))
        self._recent.pop(frame, None)
        self._recent[frame] = state
        while len(self._recent) > self._remembered:
            del self._recent[next(iter(self._recent))]
        return state

    def states(self) -> Iterator[tuple[int, FieldState]]:
        """All frames in order, each from the one before it, without key frames."""
        state = self.base.state
        yield 0, state
        for frame in range(1, self.frames):
            state = decode_frame(state, self._delta(frame, state))
            yield frame, state

    def key(self, frame: int) -> FieldState:
        """The field that a key frame holds.

        Raises:
            StreamError: it is missing, damaged, or of another stream.
        """
        path = self.folder / KEY.format(frame)
        header, blobs, _ = KIND.read(path)
        with _damaged(path):
            _expect(header, "key", frame)
            state = _field(header, blobs, self.base.state)
        if header.get("chain") != self.digest(frame):
            raise StreamError(f"{path} is a key frame of another stream: it does not belong to {FRAME.format(frame)}")
        return state

    def digest(self, frame: int) -> str:
        """SHA-256 of a frame's file, which holds that of the file before it."""
        if frame == 0:
            return self._base_digest
        path = self.folder / FRAME.format(frame)
        try:
            with path.open("rb") as file:
                file.seek(-DIGEST_BYTES, os.SEEK_END)
                return file.read().hex()
        except OSError as error:
            raise StreamError(f"cannot read {path}: {error.strerror or error}") from None

    def parts(self, frame: int) -> tuple[dict[str, Any], list[Part]]:
        """The header of a frame's file, and its parts with their bytes, which add up to the file's."""
        path = self.folder / (FRAME.format(frame) if frame else BASE)
        header, blobs, _ = KIND.read(path)
        parts = [Part(blob.name, blob.coder, len(blob.data)) for blob in blobs]
        return header, [Part("header", "deflate", path.stat().st_size - sum(part.bytes for part in parts)), *parts]

    def _delta(self, frame: int, before: FieldState) -> FrameDelta:
        path = self.folder / FRAME.format(frame)
        header, blobs, _ = KIND.read(path)
        with _damaged(path):
            _expect(header, "delta", frame)
            parent, found = header["parent"], self.digest(frame - 1)
        if parent != found:
            what = "base" if frame == 1 else f"frame {frame - 1}"
            raise StreamError(f"{path}: frame {frame} builds on the {what} {parent[:8]}, but found {found[:8]}")
        if header.get("half") is not self.base.half:
            raise StreamError(f"{path} is of another precision than the base")
        with _damaged(path):
            return decode_delta(before, header, {blob.name: blob.data for blob in blobs})


def _pack_field(header: dict[str, Any], state: FieldState, what: str) -> bytes:
    blobs = _finite(what, lambda: encode_field(state))
    numbers = {
        "size": list(state.size),
        "n_voxels": len(state.sh),
        # A float32 is a float64 exactly, and JSON keeps float64 exactly.
        "radius": state.radius.tolist(),
        "center": state.center.tolist(),
    }
    return KIND.pack({**header, **numbers}, blobs)


def _field(header: dict[str, Any], blobs: list[Blob], base: FieldState | None = None) -> FieldState:
    size = Size.of(header["size"])
    if base is not None and size != base.size:
        raise ValueError(f"a grid of {size} voxels, where the base has {base.size}")
    vectors = (torch.tensor(header[name], dtype=torch.float32) for name in ("radius", "center"))
    return decode_field(size, int(header["n_voxels"]), *vectors, {blob.name: blob.data for blob in blobs})


def _expect(header: dict[str, Any], kind: str, frame: int | None = None) -> None:
    if header.get("kind") != kind:
        raise ValueError(f"it holds a {header.get('kind')}, not a {kind}")
    if frame is not None and header.get("frame") != frame:
        raise ValueError(f"it holds frame {header.get('frame')}")


class _damaged:
    """Turns what reading a damaged file ends in into a sentence."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, traceback) -> None:
        if isinstance(error, StreamError):
            raise StreamError(f"{self.path}: {error}") from None
        if isinstance(
            error, (CorruptStream, KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError)
        ):
            reason = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise StreamError(f"{self.path} is damaged: {reason}") from None


def _finite(what: str, encode):
    try:
        return encode()
    except ValueError as error:
        raise StreamError(f"{what} cannot be stored: it holds {error}; the training has diverged") from None


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _remove_after(folder: Path, frame: int) -> None:
    for path in folder.iterdir():
        match = PATTERN.fullmatch(path.name)
        if (match and int(match[2]) > frame) or re.fullmatch(r"\..*\.srf\.part", path.name):
            path.unlink()
