"""The parts of a `.vqrf` file: how each is coded. Several coders are tried when a file is written, the smallest wins.

Parts are read in the order of `PARTS`; a part may use earlier ones as context, since the decoder has them by then.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perception.radiance.entropy_coding import CorruptStream, decode, encode
from perception.radiance.octree_coding import decode_mask, encode_mask, neighbour_counts
from projects.vqrf.file_format.neighbours import (
    decode_codes,
    decode_differences,
    encode_codes,
    encode_differences,
    remaining_voxels,
    vq_voxels,
)

PARTS = ("non_prune", "density", "keep", "kept", "codes", "codebook", "rgbnet")
Context = dict[str, Any]  # what the decoder knows: ``shape`` of the grid, sizes, and the parts it has read

DENSITY_LEVELS = 8  # of a voxel's density as context for the kept class


# Bytes


def _inflate(data: bytes, size: int) -> bytes:
    return _bounded(zlib.decompressobj(), data, size)


def _unlzma(data: bytes, size: int) -> bytes:
    return _bounded(lzma.LZMADecompressor(format=lzma.FORMAT_XZ), data, size)


def _bounded(decompressor, data: bytes, size: int) -> bytes:
    """Decompress to exactly ``size`` bytes, without making more whatever the data say."""
    try:
        raw = decompressor.decompress(data, size + 1)
    except (zlib.error, lzma.LZMAError) as error:
        raise CorruptStream(str(error)) from None
    if len(raw) != size or not decompressor.eof:
        raise CorruptStream(f"compressed data of {len(raw)} bytes where {size} are expected")
    return raw


def _store(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise CorruptStream(f"{len(data)} bytes where {size} are expected")
    return data


BYTE_CODERS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes, int], bytes]]] = {
    "store": (bytes, _store),
    "deflate": (lambda raw: zlib.compress(raw, 9), _inflate),
    "lzma": (lambda raw: lzma.compress(raw, preset=9), _unlzma),
}


def encode_part(name: str, value: Any, context: Context) -> tuple[str, bytes, dict[str, int]]:
    """Code one part with every coder it has.

    Returns:
        The coder that made the fewest bytes, these bytes, and how many each coder made.
    """
    raw = RAW_FORM[name][0](value, context)
    coded = {coder: pack(raw) for coder, (pack, _) in BYTE_CODERS.items()}
    coded.update({coder: form[0](value, context) for coder, form in RANS_FORMS[name].items()})
    best = min(coded, key=lambda coder: len(coded[coder]))
    return best, coded[best], {coder: len(data) for coder, data in coded.items()}


def decode_part(name: str, coder: str, data: bytes, context: Context) -> Any:
    """Restore one part.

    Raises:
        CorruptStream: the bytes do not fit what is known already.
    """
    if coder in RANS_FORMS[name]:
        return RANS_FORMS[name][coder][1](data, context)
    if coder not in BYTE_CODERS:
        raise CorruptStream(f"unknown coder {coder!r}")
    return RAW_FORM[name][1](BYTE_CODERS[coder][1](data, raw_size(name, context)), context)


def raw_size(name: str, context: Context) -> int:
    """Bytes of a part before coding."""
    voxels = int(np.prod(context["shape"]))
    bits = {
        "non_prune": lambda: voxels,
        "density": lambda: 8 * context["num_remaining"],
        "keep": lambda: context["num_remaining"],
        "kept": lambda: 8 * context["num_kept"] * context["channels"],
        "codes": lambda: context["num_codes"] * _code_bits(context),
        "codebook": lambda: 16 * context["codebook_size"] * context["channels"],
        "rgbnet": lambda: 16 * context["network_size"],
    }[name]()
    return -(-bits // 8)


# One-bit parts: masks


def _pack_bits(mask: Tensor, context: Context) -> bytes:
    return np.packbits(mask.numpy()).tobytes()


def _unpack_bits(data: bytes, count: int) -> Tensor:
    return torch.from_numpy(np.unpackbits(np.frombuffer(data, np.uint8), count=count).astype(bool))


def _rans_mask(mask: Tensor, context: Context) -> bytes:
    return encode_mask(mask.view(context["shape"]).numpy())


def _unrans_mask(data: bytes, context: Context) -> Tensor:
    return torch.from_numpy(decode_mask(data, context["shape"])).view(-1)


# `keep` says for each remaining voxel whether its features are kept


def _keep_context(context: Context) -> np.ndarray:
    density = context["density"].numpy().astype(np.int64)
    bounds = np.sort(density)[len(density) * np.arange(1, DENSITY_LEVELS) // DENSITY_LEVELS]
    return np.searchsorted(bounds, density, side="right") * 7 + _neighbours(context)


def _neighbours(context: Context) -> np.ndarray:
    remaining = context["non_prune"].view(context["shape"]).numpy()
    return neighbour_counts(remaining)[remaining]


# Eight-bit numbers


def _bytes_of(values: Tensor, context: Context) -> bytes:
    return values.numpy().tobytes()


def _int8(data: bytes, *shape: int) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, np.int8).copy()).view(*shape)


def _symbols(values: Tensor) -> np.ndarray:
    return values.numpy().astype(np.int64).ravel() + 128


def _unsymbols(symbols: np.ndarray, *shape: int) -> Tensor:
    if len(symbols) and symbols.max() > 255:
        raise CorruptStream("a number of more than 8 bits")
    return torch.from_numpy((symbols - 128).astype(np.int8)).view(*shape)


def _int8_coder(size: str, contexts: Callable | None = None) -> tuple[Callable, Callable]:
    """Encoder and decoder of a vector of 8-bit numbers whose length the context holds as ``size``."""
    return (
        lambda values, c: encode(_symbols(values), contexts and contexts(c)),
        lambda data, c: _unsymbols(decode(data, contexts and contexts(c), count=c[size]), c[size]),
    )


def _kept_coder(contexts: Callable | None) -> tuple[Callable, Callable]:
    def unpack(data: bytes, c: Context) -> Tensor:
        shape = (c["num_kept"], c["channels"])
        return _unsymbols(decode(data, contexts and contexts(c), count=shape[0] * shape[1]), *shape)

    return lambda values, c: encode(_symbols(values), contexts and contexts(c)), unpack


def _bit_coder(size: str, contexts: Callable | None = None) -> tuple[Callable, Callable]:
    return (
        lambda values, c: encode(values.numpy(), contexts and contexts(c)),
        lambda data, c: torch.from_numpy(decode(data, contexts and contexts(c), count=c[size]) > 0),
    )


def _channels(context: Context) -> np.ndarray:
    return np.tile(np.arange(context["channels"]), context["num_kept"])


# Codewords


def _code_bits(context: Context) -> int:
    return max(1, (context["codebook_size"] - 1).bit_length())


def _pack_codes(codes: Tensor, context: Context) -> bytes:
    bits = codes.numpy()[:, None] >> np.arange(_code_bits(context))[::-1] & 1
    return np.packbits(bits.astype(bool)).tobytes()


def _unpack_codes(data: bytes, context: Context) -> Tensor:
    width, count = _code_bits(context), context["num_codes"]
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=count * width).reshape(count, width)
    return torch.from_numpy(bits.astype(np.int64) @ (1 << np.arange(width)[::-1]))


def _unrans_codes(data: bytes, context: Context) -> Tensor:
    return torch.from_numpy(decode(data, count=context["num_codes"]))


# Half-precision numbers: high and low bytes are coded apart, since only the high ones are predictable


def _half_bytes(values: Tensor, context: Context) -> bytes:
    pairs = np.frombuffer(values.numpy().astype("<f2").tobytes(), np.uint8).reshape(-1, 2)
    return pairs[:, 1].tobytes() + pairs[:, 0].tobytes()


def _half(data: bytes, *shape: int) -> Tensor:
    pairs = np.frombuffer(data, np.uint8).reshape(2, -1)
    values = np.frombuffer(np.stack([pairs[1], pairs[0]], 1).tobytes(), "<f2")
    return torch.from_numpy(values.astype(np.float16)).view(*shape)


def _rans_half(values: Tensor, context: Context) -> bytes:
    raw = np.frombuffer(_half_bytes(values, context), np.uint8)
    return encode(raw, np.arange(len(raw)) >= len(raw) // 2)


def _unrans_half(data: bytes, count: int, *shape: int) -> Tensor:
    raw = decode(data, np.arange(2 * count) >= count, count=2 * count)
    if len(raw) and raw.max() > 255:
        raise CorruptStream("a byte of more than 8 bits")
    return _half(raw.astype(np.uint8).tobytes(), *shape)


def _table(context: Context) -> tuple[int, int]:
    return context["codebook_size"], context["channels"]


RAW_FORM: dict[str, tuple[Callable, Callable]] = {
    "non_prune": (_pack_bits, lambda data, c: _unpack_bits(data, int(np.prod(c["shape"])))),
    "density": (_bytes_of, lambda data, c: _int8(data, c["num_remaining"])),
    "keep": (_pack_bits, lambda data, c: _unpack_bits(data, c["num_remaining"])),
    "kept": (_bytes_of, lambda data, c: _int8(data, c["num_kept"], c["channels"])),
    "codes": (_pack_codes, _unpack_codes),
    "codebook": (_half_bytes, lambda data, c: _half(data, *_table(c))),
    "rgbnet": (_half_bytes, lambda data, c: _half(data, c["network_size"])),
}
RANS_FORMS: dict[str, dict[str, tuple[Callable, Callable]]] = {
    "non_prune": {"octree": (_rans_mask, _unrans_mask)},
    "density": {
        "rans": _int8_coder("num_remaining"),
        "rans-neighbours": _int8_coder("num_remaining", _neighbours),
        "rans-differences": (
            lambda values, c: encode_differences(values.numpy().astype(np.int64), remaining_voxels(c)),
            lambda data, c: torch.from_numpy(decode_differences(data, remaining_voxels(c)).astype(np.int8)),
        ),
    },
    "keep": {"rans": _bit_coder("num_remaining"), "rans-density": _bit_coder("num_remaining", _keep_context)},
    "kept": {"rans": _kept_coder(None), "rans-channels": _kept_coder(_channels)},
    "codes": {
        "rans": (lambda values, c: encode(values.numpy()), _unrans_codes),
        "rans-repeats": (
            lambda values, c: encode_codes(values.numpy(), vq_voxels(c)),
            lambda data, c: torch.from_numpy(decode_codes(data, vq_voxels(c))),
        ),
    },
    "codebook": {
        "rans": (_rans_half, lambda data, c: _unrans_half(data, c["codebook_size"] * c["channels"], *_table(c)))
    },
    "rgbnet": {"rans": (_rans_half, lambda data, c: _unrans_half(data, c["network_size"], c["network_size"]))},
}
"""rANS coders of each part, by what they take as context."""
