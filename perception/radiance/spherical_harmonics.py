"""Real spherical harmonics with the signs of tiny-cuda-nn, differentiable by the direction."""

from __future__ import annotations

import torch
from torch import Tensor

DEGREES = 5
"""Most bands that are here."""


def spherical_harmonics(directions: Tensor, degrees: int) -> Tensor:
    """The first ``degrees ** 2`` functions at directions (..., 3): (..., degrees ** 2).

    They are polynomials in x, y and z, which for unit vectors are orthonormal over the sphere; other lengths are not
    normalised. nerfstudio's functions 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21 and 23 have the other sign.

    Raises:
        ValueError: ``degrees`` is not from 1 to 5.

    Example:
        >>> spherical_harmonics(torch.tensor([0.0, 0.0, 1.0]), 2)
        tensor([0.2821, -0.0000, 0.4886, -0.0000])
    """
    if not 1 <= degrees <= DEGREES:
        raise ValueError(f"there are from 1 to {DEGREES} bands, not {degrees}")
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, 0.28209479177387814)]
    if degrees > 1:
        values += [-0.48860251190291987 * y, 0.48860251190291987 * z, -0.48860251190291987 * x]
    if degrees > 2:
        xx, yy, zz = x * x, y * y, z * z
        values += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.94617469575756 * zz - 0.31539156525252,
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ]
    if degrees > 3:
        values += [
            0.5900435899266435 * y * (yy - 3 * xx),
            2.890611442640554 * x * y * z,
            0.4570457994644657 * y * (1 - 5 * zz),
            0.3731763325901154 * z * (5 * zz - 3),
            0.4570457994644657 * x * (1 - 5 * zz),
            1.445305721320277 * z * (xx - yy),
            0.5900435899266435 * x * (3 * yy - xx),
        ]
    if degrees > 4:
        values += [
            2.5033429417967046 * x * y * (xx - yy),
            1.7701307697799304 * y * z * (yy - 3 * xx),
            0.9461746957575601 * x * y * (7 * zz - 1),
            0.6690465435572892 * y * z * (3 - 7 * zz),
            3.7024941420321507 * zz * zz - 3.1735664074561294 * zz + 0.31735664074561293,
            0.6690465435572892 * x * z * (3 - 7 * zz),
            0.47308734787878004 * (xx - yy) * (7 * zz - 1),
            1.7701307697799304 * x * z * (3 * yy - xx),
            0.6258357354491761 * (xx * xx + yy * yy) - 3.755014412695057 * xx * yy,
        ]
    return torch.stack(values, -1)
