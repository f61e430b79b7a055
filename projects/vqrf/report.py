"""What a finished run leaves beside its checkpoint: the file, and how good and how large it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

from nerfstudio.utils.rich_utils import CONSOLE
from rich.table import Table

from perception.engine.atomic import replacing
from projects.vqrf.compression import CompressedGrids
from projects.vqrf.file_format import container

FILE_NAME = "field.vqrf"
REPORT_NAME = "compression.json"


def raw_bytes(compressed: CompressedGrids) -> int:
    """Bytes of the field before compression: two float32 grids and the network."""
    channels = 1 + compressed.codebook.shape[1]
    return 4 * (channels * len(compressed.non_prune) + sum(value.numel() for value in compressed.rgbnet.values()))


def parts_table(path: Path) -> Table:
    """The parts of a file and their bytes, to be printed."""
    table = Table("part", "coder", "raw bytes", "stored bytes", title=str(path))
    for part in container.report(path):
        table.add_row(part.name, part.coder, f"{part.raw_bytes:,}", f"{part.stored_bytes:,}")
    table.add_row("total", "", "", f"{os.path.getsize(path):,}")
    return table


def write_report(folder: Path, compressed: CompressedGrids, *, before: dict, after: dict) -> Path:
    """Write `field.vqrf` and `compression.json` into a run's folder and print the parts.

    Args:
        folder: of the run.
        compressed: the field.
        before, after: image metrics of the fine field, and of the compressed one.
    """
    path = folder / FILE_NAME
    size, raw = container.write(path, compressed), raw_bytes(compressed)
    content = {
        "file": FILE_NAME,
        "bytes": size,
        "raw_bytes": raw,
        "ratio": raw / size,
        "parts": {part.name: part.stored_bytes for part in container.report(path)},
        "bytes_by_coder": container.coder_sizes(compressed),
        "before": before,
        "after": after,
    }
    with replacing(folder / REPORT_NAME) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())
    CONSOLE.print(parts_table(path))
    CONSOLE.print(f"{path}: {size:,} bytes, 1/{raw / size:.1f} of the uncompressed field")
    return path
