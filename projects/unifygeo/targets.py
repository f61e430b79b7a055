"""Target maps of camera positions in satellite tiles, and their turns."""

from __future__ import annotations

import torch
from torch import Tensor

LABEL_SIZE = 640
"""Side in pixels of the tiles that VIGOR's labels refer to."""


def rounded_offsets(offsets: Tensor, size: int) -> Tensor:
    """Offsets (..., 2) at ``LABEL_SIZE`` in whole pixels of a tile of ``size``, ties to even."""
    return (offsets.double() * size / LABEL_SIZE).round()


def target_maps(offsets: Tensor, size: int = 384, sigma: float = 4.0) -> Tensor:
    """Gaussian bumps at camera positions.

    Args:
        offsets: (B, 2), VIGOR's (d_row, d_col) at 640 pixels: positive below, and to the *left* of the centre.
        size: side S of the maps in pixels.
        sigma: of the bump, in pixels of the map.

    Returns:
        (B, 1, S, S), 1 at the peak. As released, cell i stands for the i-th of S evenly spaced places from -S/2 to S/2
        *inclusive*: without an offset the peak is at S/2 - 1, not between S/2 - 1 and S/2.
    """
    rounded = rounded_offsets(offsets, size)
    places = torch.linspace(-size / 2, size / 2, size, dtype=torch.float64, device=offsets.device)
    rows = places - rounded[:, :1]
    columns = places + rounded[:, 1:]
    squares = rows[:, :, None] ** 2 + columns[:, None, :] ** 2
    return (-squares / (2 * sigma**2)).exp().float()[:, None]


def turned(maps: Tensor, flips: Tensor, quarter_turns: Tensor) -> Tensor:
    """Maps (B, ..., S, S) after the joint augmentation of views.

    Args:
        maps: of any square content.
        flips: bool (B,), mirrored left to right, before the turn.
        quarter_turns: int (B,), counter-clockwise.
    """
    out = []
    for image, flip, turns in zip(maps, flips.tolist(), quarter_turns.tolist()):
        out.append(torch.rot90(image.flip(-1) if flip else image, turns, (-2, -1)))
    return torch.stack(out)
