"""The `.vqrf` file: one compressed field, without pickle, framed by :mod:`perception.engine.framed_file`.

The header describes the field, beside the list of parts.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perception.engine.atomic import replacing
from perception.engine.errors import UserError
from perception.engine.framed_file import Blob, FileKind
from perception.radiance.entropy_coding import CorruptStream
from projects.vqrf.compression import CompressedGrids
from projects.vqrf.file_format.parts import PARTS, Context, decode_part, encode_part, raw_size
from projects.vqrf.quantization import Int8Tensor

SIGNATURE = b"\x89VQRF\r\n\x1a"
VERSION = 1
MAX_VOXELS = 1 << 30
MAX_NUMBERS = 1 << 26  # of a codebook or network


class VqrfFileError(UserError):
    """A file is not a readable `.vqrf` file."""


KIND = FileKind(".vqrf", SIGNATURE, VERSION, VqrfFileError)


@dataclass(frozen=True)
class Part:
    """One line of a file's report."""

    name: str
    coder: str
    raw_bytes: int
    stored_bytes: int


def pack(compressed: CompressedGrids) -> bytes:
    """The bytes of a file."""
    context = _context_of(compressed)
    values = _part_values(compressed)
    blobs = []
    for name in PARTS:
        coder, blob, _ = encode_part(name, values[name], context)
        context[name] = values[name]
        blobs.append(Blob(name, coder, blob))
    return KIND.pack(_describe(compressed), blobs)


def write(path: Path, compressed: CompressedGrids) -> int:
    """Write a file, under a temporary name until it is complete. Returns its size in bytes."""
    data = pack(compressed)
    with replacing(path) as file:
        file.write(data)
    return len(data)


def read(path: Path) -> CompressedGrids:
    """Read a file.

    Raises:
        VqrfFileError: it is missing, foreign, damaged, cut short or newer than this version.
    """
    header, blobs = _open(path)
    try:
        return _assemble(header, blobs)
    except (CorruptStream, KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise VqrfFileError(f"{path} is damaged: {error}") from None


def report(path: Path) -> list[Part]:
    """The parts of a file with their bytes; the stored bytes add up to the file's size.

    Raises:
        VqrfFileError: as :func:`read`.
    """
    header, blobs = _open(path)
    context = _context_of(read(path))
    parts = [Part(name, coder, raw_size(name, context), len(blob)) for name, coder, blob in blobs]
    frame = os.path.getsize(path) - sum(part.stored_bytes for part in parts)
    return [Part("header", "deflate", len(json.dumps(header)), frame), *parts]


def coder_sizes(compressed: CompressedGrids) -> dict[str, dict[str, int]]:
    """Bytes that each coder makes of each part: what the choice of coders rests on."""
    context, values, sizes = _context_of(compressed), _part_values(compressed), {}
    for name in PARTS:
        _, _, sizes[name] = encode_part(name, values[name], context)
        context[name] = values[name]
    return sizes


# The frame


def _open(path: Path) -> tuple[dict[str, Any], list[tuple[str, str, bytes]]]:
    header, blobs, _ = KIND.read(path)
    if [blob.name for blob in blobs] != list(PARTS):
        raise VqrfFileError(f"{path} is damaged: its parts are not those of this format")
    return header, [(blob.name, blob.coder, blob.data) for blob in blobs]


# The field


def _describe(compressed: CompressedGrids) -> dict[str, Any]:
    return {
        "world_size": list(compressed.world_size),
        # A float32 is a float64 exactly, and JSON keeps float64 exactly.
        "xyz_min": compressed.xyz_min.tolist(),
        "xyz_max": compressed.xyz_max.tolist(),
        "act_shift": compressed.act_shift,
        "field": compressed.field_kwargs,
        "render": compressed.render,
        "density": [compressed.density.scale, compressed.density.zero_point],
        "kept": [compressed.kept.scale, compressed.kept.zero_point],
        "codebook": list(compressed.codebook.shape),
        "rgbnet": [[name, list(value.shape)] for name, value in compressed.rgbnet.items()],
    }


def _part_values(compressed: CompressedGrids) -> dict[str, Tensor]:
    return {
        "non_prune": compressed.non_prune,
        "density": compressed.density.values,
        "keep": compressed.keep[compressed.non_prune],
        "kept": compressed.kept.values,
        "codes": compressed.codes,
        "codebook": compressed.codebook,
        "rgbnet": torch.cat([value.reshape(-1) for value in compressed.rgbnet.values()]),
    }


def _context_of(compressed: CompressedGrids) -> Context:
    return {
        "shape": tuple(compressed.world_size),
        "num_remaining": int(compressed.non_prune.sum()),
        "num_kept": int(compressed.keep.sum()),
        "num_codes": len(compressed.codes),
        "codebook_size": len(compressed.codebook),
        "channels": compressed.codebook.shape[1],
        "network_size": sum(value.numel() for value in compressed.rgbnet.values()),
    }


def _assemble(header: dict[str, Any], blobs: list[tuple[str, str, bytes]]) -> CompressedGrids:
    shape = tuple(int(size) for size in header["world_size"])
    codebook_size, channels = (int(size) for size in header["codebook"])
    shapes = {name: tuple(int(size) for size in sizes) for name, sizes in header["rgbnet"]}
    network_size = sum(math.prod(sizes) for sizes in shapes.values())
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
        raise ValueError(f"a grid of {shape} voxels")
    if not (0 < codebook_size <= 1 << 16 and channels > 0 and codebook_size * channels <= MAX_NUMBERS):
        raise ValueError(f"a codebook of {codebook_size} x {channels} numbers")
    if not 0 <= network_size <= MAX_NUMBERS:
        raise ValueError(f"a network of {network_size} numbers")
    context: Context = {
        "shape": shape,
        "codebook_size": codebook_size,
        "channels": channels,
        "network_size": network_size,
    }
    for name, coder, blob in blobs:
        context[name] = decode_part(name, coder, blob, context)
        if name == "non_prune":
            context["num_remaining"] = int(context[name].sum())
        elif name == "keep":
            context["num_kept"] = int(context[name].sum())
            context["num_codes"] = context["num_remaining"] - context["num_kept"]
    if len(context["codes"]) and int(context["codes"].max()) >= codebook_size:
        raise ValueError("a code beyond the codebook")
    keep = torch.zeros_like(context["non_prune"])
    keep[context["non_prune"]] = context["keep"]
    flat = context["rgbnet"].split([math.prod(sizes) for sizes in shapes.values()])
    return CompressedGrids(
        world_size=shape,
        xyz_min=torch.tensor(header["xyz_min"], dtype=torch.float32),
        xyz_max=torch.tensor(header["xyz_max"], dtype=torch.float32),
        act_shift=float(header["act_shift"]),
        field_kwargs=header["field"],
        render=header["render"],
        non_prune=context["non_prune"],
        keep=keep,
        density=_int8(context["density"], header["density"]),
        kept=_int8(context["kept"], header["kept"]),
        codes=context["codes"],
        codebook=context["codebook"],
        rgbnet={name: part.view(sizes) for (name, sizes), part in zip(shapes.items(), flat)},
    )


def _int8(values: Tensor, numbers: list) -> Int8Tensor:
    scale, zero_point = float(numbers[0]), int(numbers[1])
    if not np.isfinite(scale):
        raise ValueError(f"a scale of {scale}")
    return Int8Tensor(values, scale, zero_point)
