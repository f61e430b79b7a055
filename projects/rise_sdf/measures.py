"""Quality of materials, normals and relit pictures: what one picture leaves open is taken from the truth first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.radiance.metrics import psnr

LEAST = 1e-6


def median_scale(prediction: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Factor (C,) by which each channel of a picture (H, W, C) becomes most like the truth: the median of their ratio
    over a mask (H, W). Between albedo and light it cannot be determined."""
    ratio = truth[mask] / prediction[mask].clamp(min=LEAST)
    return ratio.median(0).values if len(ratio) else prediction.new_ones(prediction.shape[-1])


def scaled_psnr(prediction: Tensor, truth: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """PSNR of a whole picture after :func:`median_scale` within the mask, cut at [0, 1]; and the factors.

    The background is no part of the object: scaled, a white one would be wrong wherever the object is not.
    """
    scale = median_scale(prediction, truth, mask)
    scaled = torch.where(mask[..., None], prediction * scale, prediction)
    return psnr(scaled.clamp(0, 1), truth), scale


def normal_error(prediction: Tensor, truth: Tensor, mask: Tensor, *, released: bool = False) -> Tensor:
    """Mean angle in degrees between normals (H, W, 3) of any length over a mask (H, W); NaN where it is empty.

    With ``released`` as the published helper has it: lengths count, angles beyond 90 degrees are 90, those that are not
    a number 0, and the mask may be weights in [0, 1].
    """
    if released:
        angle = torch.rad2deg((prediction * truth).sum(-1).clamp(1e-8, 1 - 1e-8).acos()).nan_to_num(0)
        return (angle * mask).sum() / mask.sum()
    cosine = (F.normalize(prediction[mask], dim=-1) * F.normalize(truth[mask], dim=-1)).sum(-1)
    return torch.rad2deg(cosine.clamp(-1 + 1e-8, 1 - 1e-8).acos()).mean()
