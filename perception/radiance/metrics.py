"""Image quality of renderings. Images are (H, W, 3) floats, 1 is white; nothing is clamped or rounded."""

from __future__ import annotations

import math

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


def sparsification_error(uncertainty: Tensor, squared_error: Tensor, steps: int = 100) -> float:
    """AUSE: how much worse an uncertainty orders pixels than their errors themselves would.

    The root mean squared error of what remains, when the most uncertain pixels are left out, is followed from all
    pixels to the last hundredth and divided by that of all. The area between this curve and the one that leaves out the
    pixels of the largest error is the result: 0 is perfect.

    Args:
        uncertainty: (N,) of pixels, any monotone measure.
        squared_error: (N,) of the same pixels.
        steps: into which the share that is left out is divided.

    Returns:
        Not a number where there is no error, or no pixel.

    Source: Ilg et al., Uncertainty Estimates and Multi-Hypotheses Networks for Optical Flow, ECCV 2018.

    Example:
        >>> error = torch.arange(100.0)
        >>> sparsification_error(error, error)
        0.0
    """
    error = squared_error.reshape(-1).double()
    if not len(error):
        return math.nan
    kept = len(error) - (torch.arange(steps, dtype=torch.float64) / steps * len(error)).long().to(error.device)

    def curve(order_by: Tensor) -> Tensor:
        ordered = error[order_by.reshape(-1).argsort(stable=True)]  # the least uncertain first
        return (ordered.cumsum(0)[kept - 1] / kept).sqrt()

    return float((curve(uncertainty) - curve(error)).mean() / error.mean().sqrt())


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two sets of N numbers, of any shape; equal ones share their ranks.

    Returns:
        Not a number where one of the sets is constant or empty.
    """
    if not first.numel():
        return math.nan
    from scipy.stats import rankdata  # a second to import, and training does not need it

    ranks = torch.stack(
        [torch.from_numpy(rankdata(part.detach().cpu().reshape(-1).numpy())) for part in (first, second)]
    )
    return float(torch.corrcoef(ranks)[0, 1])


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
