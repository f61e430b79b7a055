"""JPEG files of synthetic pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

_SETTINGS = [
    cv2.IMWRITE_JPEG_QUALITY,
    93,
    # Full colour resolution: small objects keep their edges.
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """Write a picture, `uint8` `[H, W, 3]` RGB.

    Raises:
        OSError: the file cannot be written.
    """
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], _SETTINGS)
    path.write_bytes(encoded.tobytes())
