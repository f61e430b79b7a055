"""Poses far from the origin, whose places single precision cannot tell apart."""

from __future__ import annotations

import numpy as np
from nerfstudio.utils.rich_utils import CONSOLE

LEAST_STEPS = 10_000
"""Steps of single precision that the cameras' extent must span; map coordinates of a house span some ten."""


def far_centre(positions: np.ndarray) -> np.ndarray | None:
    """What to subtract from camera positions (N, 3), in double precision, before they become single precision.

    Returns:
        Whole numbers (3,) near the mean position; ``None`` where single precision holds the positions as they are.
    """
    if fit_single_precision(positions):
        return None
    centre = np.round(positions.mean(0))
    CONSOLE.log(
        f"[yellow]The cameras stand {np.abs(centre).max():,.0f} units from the origin: the scene's frame is moved by "
        f"{(-centre).tolist()}, which dataparser_transforms.json records"
    )
    return centre


def fit_single_precision(positions: np.ndarray) -> bool:
    """Whether single precision tells camera positions (N, 3) well apart; of one place there is nothing to tell."""
    extent = float(np.ptp(positions, axis=0).max()) if len(positions) else 0.0
    step = float(np.spacing(np.float32(np.abs(positions).max(initial=0))))
    return extent == 0 or extent > LEAST_STEPS * step
