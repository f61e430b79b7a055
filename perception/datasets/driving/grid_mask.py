"""Stripes that hide parts of an image (Chen et al., "GridMask data augmentation", 2020), as BEVFormer draws them."""

from __future__ import annotations

import random

import numpy as np

RATIO = 0.5  # of a period that a stripe takes


def draw_grid_mask(height: int, width: int) -> np.ndarray:
    """A mask bool (height, width) from Python's generator: true where the image stays.

    The period is drawn from 2 to the height less 1.
    """
    period = random.randrange(2, height)
    return grid_mask(height, width, period, random.randrange(period), random.randrange(period))


def grid_mask(height: int, width: int, period: int, shift_rows: int, shift_columns: int) -> np.ndarray:
    """The mask of a draw.

    Stripes of rows and of columns are laid over a canvas half as large again, whose middle is cut out; what any stripe
    covers stays, and the squares between them are hidden.

    Args:
        height, width: of the image.
        period: of the stripes in pixels, at least 2.
        shift_rows, shift_columns: of the first stripe, below the period.

    Returns:
        bool (height, width), true where the image stays.
    """
    stripe = min(max(int(period * RATIO + 0.5), 1), period - 1)
    canvas_height, canvas_width = int(1.5 * height), int(1.5 * width)
    rows = _stripes(canvas_height, period, shift_rows, stripe)
    columns = _stripes(canvas_width, period, shift_columns, stripe)
    mask = rows[:, None] | columns
    top, left = (canvas_height - height) // 2, (canvas_width - width) // 2
    return mask[top : top + height, left : left + width]


def _stripes(length: int, period: int, shift: int, stripe: int) -> np.ndarray:
    """Whether each place of a line is in a stripe; there are as many as whole periods fit."""
    place = np.arange(length) - shift
    return (place >= 0) & (place % period < stripe) & (place // period < length // period)
