"""Images of a folder, read whole in worker processes.

Worker processes import this module, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perception.datasets.images import IMAGE_SUFFIXES
from perception.inference.images.decoding import Decoded, InputSize, decode
from perception.inference.images.sample import ImageSample
from perception.inference.reading import Deferred, Refused
from perception.inference.scan import Scan, Source, scan


@dataclass(frozen=True)
class ImageReader:
    """Every file that by its name is an image is a source.

    Attributes:
        input_size: what the model resizes to; None when it takes images as they are.
    """

    input_size: InputSize | None = None

    def scan(self, folder: Path, patterns: Sequence[str], exclude: Path) -> Scan:
        return scan(folder, IMAGE_SUFFIXES, patterns, exclude)

    def read(self, source: Source, alone: bool) -> ImageSample | Refused | Deferred:
        decoded = decode(source, self.input_size, allow_large=alone)
        if not isinstance(decoded, Decoded):
            return decoded
        return ImageSample(decoded.pixels, decoded.width, decoded.height, decoded.factor, decoded.factor)

    def nbytes(self, sample: ImageSample) -> int:
        return sample.pixels.nbytes
