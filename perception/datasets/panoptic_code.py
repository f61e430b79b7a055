"""COCO's code of panoptic segments: their ids as colours of a PNG file."""

from __future__ import annotations

import numpy as np


def rgb2id(color: np.ndarray) -> np.ndarray | int:
    """Ids of segments from colours (..., 3): red + 256 green + 65536 blue.

    Example:
        >>> rgb2id(np.array([[[1, 2, 0], [0, 0, 1]]]))
        array([[  513, 65536]], dtype=int32)
    """
    red, green, blue = np.moveaxis(np.asarray(color).astype(np.int32), -1, 0)
    ids = red + 256 * green + 256**2 * blue
    return ids if ids.ndim else int(ids)


def id2rgb(id_map: np.ndarray | int) -> np.ndarray | list[int]:
    """Colours (..., 3) of ids, uint8; the inverse of :func:`rgb2id`."""
    ids = np.asarray(id_map)
    colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], -1).astype(np.uint8)
    return colours if ids.ndim else colours.tolist()
