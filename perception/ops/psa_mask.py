"""Point-wise spatial attention masks of PSANet."""

import torch
from torch import Tensor

__all__ = ["psa_mask"]


def psa_mask(masks: Tensor, direction: str, mask_size: tuple[int, int]) -> Tensor:
    r"""Over-complete attention maps, centred on their pixel, as full maps (PSANet, ECCV 2018, section 3.3).

    Args:
        masks: for each pixel the attention to the window around it, row by row, of shape :math:`(B, m_h m_w, H, W)`.
        direction: "collect" or "distribute".
        mask_size: rows and columns (m_h, m_w) of the window.

    Returns:
        Tensor of shape :math:`(B, HW, H, W)`, zero outside the windows. For "distribute", entry (p, q) is what
        pixel p's window says of pixel q; for "collect" it is what pixel q's window says of pixel p.

    Raises:
        ValueError: if ``direction`` is unknown.
    """
    if direction not in ("collect", "distribute"):
        raise ValueError(f"direction must be 'collect' or 'distribute', got {direction!r}")
    batch, _, height, width = masks.shape
    row, row_inside = _window_index(height, mask_size[0], masks.device)
    column, column_inside = _window_index(width, mask_size[1], masks.device)
    # Axes: other pixel's row and column, own row and column.
    index = row[:, None, :, None] * mask_size[1] + column[None, :, None, :]
    inside = row_inside[:, None, :, None] & column_inside[None, :, None, :]
    pixels = height * width
    index, inside = index.reshape(pixels, pixels), inside.reshape(pixels, pixels)
    attention = masks.flatten(2).gather(1, index.expand(batch, pixels, pixels)) * inside
    if direction == "distribute":
        attention = attention.transpose(1, 2)
    return attention.reshape(batch, pixels, height, width)


def _window_index(size: int, window: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Place of each pixel (first axis) in the window of each pixel (second axis), and whether it is in it."""
    pixel = torch.arange(size, device=device)
    index = pixel[:, None] - pixel[None] + (window - 1) // 2
    return index.clamp(0, window - 1), (index >= 0) & (index < window)
