"""Shading with a light that is filtered beforehand (split sum, Karis 2013): the table of what surfaces reflect."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

TABLE_SIZE = 256
AZIMUTHS, POLES = 28, 32  # points of the quadrature


@lru_cache(2)
def brdf_table(size: int = TABLE_SIZE) -> Tensor:
    """Scale A and bias B (1, size, size, 2) of the reflectance at normal incidence, for GGX with Smith's correlated
    shadowing and Schlick's Fresnel: a surface reflects ``F0 * A + B`` of a constant light.

    Rows are roughness (alpha = roughness squared), columns the cosine between normal and view, both at ``(k + 0.5) /
    size``. A and B are the means of ``(1 - Fc) G`` and ``Fc G`` over half vectors as GGX has them, taken by Gauss's
    rule over the height of the half vector and equal steps of its azimuth.
    """
    places = (torch.arange(size, dtype=torch.float32) + 0.5) / size
    height, weight = _gauss(POLES)
    azimuth = (torch.arange(AZIMUTHS, dtype=torch.float32) + 0.5) / AZIMUTHS * math.pi  # the other half is its mirror
    return torch.stack([_table_row(r, places, height, weight, azimuth) for r in places.tolist()])[None]


def _gauss(count: int) -> tuple[Tensor, Tensor]:
    """Places in (0, 1) and weights of Gauss and Legendre's rule, denser at both ends, where the integrand is steep."""
    place, weight = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(count))
    place, weight = (place + 1) / 2, weight / 2
    return place**2 * (3 - 2 * place), weight * 6 * place * (1 - place)


def _table_row(roughness: float, cosines: Tensor, u: Tensor, weight: Tensor, azimuth: Tensor) -> Tensor:
    """(size, 2) of a roughness."""
    squared = roughness**4
    h_cos = ((1 - u) / (1 + (squared - 1) * u)).sqrt()  # a share u of all half vectors is nearer to the normal
    h_sin = (1 - h_cos * h_cos).clamp(min=0).sqrt().to(cosines)
    h_cos, weight = h_cos.to(cosines), weight.to(cosines)
    h_x = h_sin[:, None] * azimuth.cos()  # (P, A)
    view_sin = (1 - cosines * cosines).sqrt()
    v_h = view_sin[:, None, None] * h_x + cosines[:, None, None] * h_cos[:, None]  # (size, P, A)
    n_l = 2 * v_h * h_cos[:, None] - cosines[:, None, None]
    n_v = cosines[:, None, None]
    lit, v_h = n_l.clamp(min=1e-8), v_h.clamp(min=0)
    # G2 * VoH / (NoH * NoV), with G2 = 2 * NoL * NoV / shadow
    shadow = lit * (n_v * n_v * (1 - squared) + squared).sqrt() + n_v * (lit * lit * (1 - squared) + squared).sqrt()
    value = torch.where(n_l > 0, 2 * lit * v_h / (shadow * h_cos[:, None]), 0)
    fresnel = (1 - v_h).clamp(0, 1) ** 5
    bias = (fresnel * value).mean(2) @ weight
    return torch.stack([value.mean(2) @ weight - bias, bias], -1)


def look_up(table: Tensor, cosine: Tensor, roughness: Tensor) -> tuple[Tensor, Tensor]:
    """A and B (..., 1) of a table (1, R, C, 2) for cosines (...) and roughnesses (...), bilinear and clamped."""
    place = torch.stack([cosine, roughness], -1).clamp(0, 1) * 2 - 1
    read = F.grid_sample(
        table.movedim(-1, 1), place.view(1, 1, -1, 2), mode="bilinear", padding_mode="border", align_corners=False
    )  # (1, 2, 1, M)
    scale, bias = read[0, :, 0].view(2, *cosine.shape, 1)
    return scale, bias


def linear_to_srgb(linear: Tensor) -> Tensor:
    """The sRGB curve, not clamped; any shape."""
    curved = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, curved)


def srgb_to_linear(srgb: Tensor) -> Tensor:
    """The inverse of :func:`linear_to_srgb`."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)
