"""The decoder over large renderings, tile by tile, so that memory depends on the tile and not on the picture."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from projects.nerf_4k.decoder import SFTNet


@torch.no_grad()
def decode_in_tiles(decoder: SFTNet, x: Tensor, cond: Tensor, *, tile_size: int, tile_pad: int) -> Tensor:
    """Enlarge a rendering tile by tile.

    Each tile is decoded with up to ``tile_pad`` pixels around it, which are cut off afterwards. Pixels that are
    further apart than the decoder's reach (:func:`receptive_radius`) do not influence each other, so that from such a
    ``tile_pad`` on the result is that of the whole picture; the influence falls steeply with distance, and the authors
    take 10.

    Args:
        decoder: on any device.
        x: (N, 3, h, w) colours, on any device.
        cond: (N, num_cond, h, w) condition.
        tile_size: side of a tile in pixels of ``x``.
        tile_pad: pixels of ``x`` around it.

    Returns:
        (N, 3, scale * h, scale * w) on the CPU.

    Raises:
        ValueError: ``tile_size`` is not positive, or ``tile_pad`` negative.
    """
    if tile_size < 1 or tile_pad < 0:
        raise ValueError(f"tiles need a positive size and no negative padding, got {tile_size} and {tile_pad}")
    device, scale = decoder.conv_first.weight.device, decoder.scale
    height, width = x.shape[2:]
    canvas = torch.empty(len(x), 3, scale * height, scale * width, dtype=x.dtype)
    for rows in _spans(height, tile_size):
        for columns in _spans(width, tile_size):
            around = tuple(_widen(span, tile_pad, end) for span, end in ((rows, height), (columns, width)))
            parts = (image[..., around[0], around[1]].to(device) for image in (x, cond))
            tile = decoder(*parts)
            inner = tuple(_scaled(span, scale, outer.start) for span, outer in zip((rows, columns), around))
            canvas[..., _scaled(rows, scale), _scaled(columns, scale)] = tile[..., inner[0], inner[1]].cpu()
    return canvas


def receptive_radius(decoder: SFTNet) -> int:
    """Pixels of the input, to each side, on which an output pixel may depend at most."""
    # The first convolution, 3 * 5 of each block, that behind the blocks, and at every scale no more than two pixels.
    return 1 + 15 * decoder.num_block + 1 + 2


def _spans(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def _widen(span: slice, pad: int, end: int) -> slice:
    return slice(max(span.start - pad, 0), min(span.stop + pad, end))


def _scaled(span: slice, scale: int, origin: int = 0) -> slice:
    return slice(scale * (span.start - origin), scale * (span.stop - origin))
