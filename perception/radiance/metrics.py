"""Image quality of renderings. Images are (H, W, 3) floats, 1 is white; nothing is clamped or rounded."""

from __future__ import annotations

import torch
from torch import Tensor

MARGIN = 5  # pixels from the centre of a window to its edge
BAND = 512  # rows of windows that are computed at once, since each takes some 60 bytes per channel and pixel


def psnr(prediction: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, ``-10 log10(mean squared error)`` for a peak of 1; any shape.

    Example:
        >>> psnr(torch.full((4, 4, 3), 0.6), torch.full((4, 4, 3), 0.5))
        tensor(20.0000)
    """
    return -10 * torch.log10(torch.mean((prediction - target) ** 2))


def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity: 11 x 11 Gaussian windows (sigma 1.5) that lie inside the image, mean over channels and
    windows.

    Args:
        prediction, target: (H, W, C), at least 11 pixels on each side.

    Raises:
        ValueError: the image is smaller than a window.
    """
    if min(target.shape[:2]) < 2 * MARGIN + 1:
        raise ValueError(f"SSIM needs images of at least 11 x 11 pixels, got {tuple(target.shape[:2])}")
    windows = target.shape[0] - 2 * MARGIN  # rows of them
    total = 0.0
    for first in range(0, windows, BAND):
        rows = slice(first, min(first + BAND, windows) + 2 * MARGIN)
        total += float(_ssim_map(prediction[rows], target[rows]).sum())
    return prediction.new_tensor(total / (windows * (target.shape[1] - 2 * MARGIN) * target.shape[2]))


def _ssim_map(prediction: Tensor, target: Tensor) -> Tensor:
    """The index of each window, (1, C, H - 10, W - 10)."""
    # torchmetrics takes a second to import, and training does not need it.
    from torchmetrics.functional.image import structural_similarity_index_measure

    pair = (image.movedim(-1, 0)[None] for image in (prediction, target))  # (1, C, H, W)
    _, every = structural_similarity_index_measure(*pair, data_range=1.0, return_full_image=True)
    # The windows at the border are completed by reflection there, and do not count here.
    return every[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
