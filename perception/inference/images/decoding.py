"""Decoding of image files in worker processes: what is too large is reduced, put off or refused.

How files become pixels is `perception.datasets.images`' rule. Beyond it, images of more than `FULL_PIXELS` are decoded
at a half, a quarter, ... of their size, down to twice the resolution that the model sees; `Decoded.factor` maps
coordinates back. Worker processes import this module, so it imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from perception.datasets.images import UnreadableImageError, check_samples, open_image, orientation_of, upright_rgb
from perception.inference.reading import Deferred, Refused
from perception.inference.scan import Source

FULL_PIXELS = 16_000_000
"""Images up to this size are decoded as they are, whatever the model resizes them to."""

LARGE_BYTES = 256 * 2**20
"""Decoding that needs more than this is deferred, so that it never happens in several processes at once."""

LIMIT_BYTES = 3 * 2**29
"""Decoding that needs more than this is refused."""

# Bytes a pixel in PIL's memory; what is not listed takes four.
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}


@dataclass(frozen=True)
class InputSize:
    """How a test pipeline resizes: to `width` x `height`, or with `keep_ratio` to fit their long and short side."""

    width: int
    height: int
    keep_ratio: bool

    def reduction(self, width: int, height: int) -> float:
        """By how much an image of this size shrinks on its way into the model, along the axis that shrinks least."""
        if not self.keep_ratio:
            return min(width / self.width, height / self.height)
        long, short = max(self.width, self.height), min(self.width, self.height)
        # The ratio is kept, so both axes shrink by the stronger of the two demands.
        return max(max(width, height) / long, min(width, height) / short)


@dataclass(frozen=True)
class Decoded:
    """An image in memory.

    `pixels` is uint8 (height, width, 3) RGB. A coordinate in it times `factor` is a coordinate in the upright original,
    which has `width` x `height` pixels.
    """

    pixels: np.ndarray
    width: int
    height: int
    factor: int


@dataclass(frozen=True)
class TooLarge(Refused):
    """An image that does not fit into memory."""


def decode(source: Source, input_size: InputSize | None, allow_large: bool) -> Decoded | Refused | Deferred:
    """Decodes one file; whatever is wrong with it comes back as `Refused`, never as an exception.

    Args:
        source: the file.
        input_size: what the model resizes to; None when it takes images as they are.
        allow_large: decode even when it takes more than `LARGE_BYTES`.
    """
    try:
        with open_image(source.path) as image:
            return _decode(image, input_size, allow_large)
    except UnreadableImageError as error:
        return Refused(str(error))


def _decode(image: Image.Image, input_size: InputSize | None, allow_large: bool) -> Decoded | Refused | Deferred:
    check_samples(image)
    width, height = image.size
    factor = reduction_factor(width, height, input_size)
    needed = memory_needed(image, factor)
    beyond = beyond_memory(width, height, needed, allow_large)
    if beyond is not None:
        return beyond
    rgb = upright_rgb(image, factor)
    if orientation_of(image) >= 5:
        width, height = height, width
    return Decoded(np.asarray(rgb), width, height, factor)


def beyond_memory(width: int, height: int, needed: int, allow_large: bool) -> TooLarge | Deferred | None:
    """What becomes of an image whose decoding needs so many bytes; None when it can be decoded at once."""
    if needed > LIMIT_BYTES:
        gibibytes = f"{needed / 2**30:.1f} GiB to decode, the limit is {LIMIT_BYTES / 2**30:g} GiB"
        return TooLarge(f"{width} x {height} pixels need {gibibytes}")
    return Deferred() if needed > LARGE_BYTES and not allow_large else None


def reduction_factor(width: int, height: int, input_size: InputSize | None) -> int:
    """The smallest power of two that brings an image under `FULL_PIXELS`, as far as the model does not notice."""
    factor = 1
    if input_size is None:
        return factor
    # A model that shrinks by r still gets at least two decoded pixels for each of its own when 2 * factor <= r.
    allowed = input_size.reduction(width, height) / 2
    while 2 * factor <= allowed and (width // factor) * (height // factor) > FULL_PIXELS:
        factor *= 2
    return factor


def memory_needed(image: Image.Image, factor: int) -> int:
    """Bytes that decoding an opened image takes at its peak, estimated from its header."""
    width, height = image.size
    result = 3 * (width // factor + 1) * (height // factor + 1)
    if image.format in ("JPEG", "MPO"):
        scale = min(factor, 8)
        buffers = 4 * (width // scale + 1) * (height // scale + 1)
        # A progressive file's coefficients (16 bits each) are kept whole, whatever size comes out.
        coefficients = 6 * width * height if image.info.get("progressive") else 0
        return buffers + coefficients + 2 * result
    stored = _PIXEL_BYTES.get(image.mode, 4)
    converted = 0 if image.mode == "RGB" else 4
    return (stored + converted) * width * height + 2 * result
