"""Which device a command works on."""

from __future__ import annotations

from functools import cache

import torch
from nerfstudio.utils.rich_utils import CONSOLE


def say_device(device: torch.device | str) -> None:
    """Say once that a command works on the CPU because there is nothing faster here."""
    if torch.device(device).type == "cpu" and not torch.cuda.is_available():
        _say_cpu()


@cache
def _say_cpu() -> None:
    CONSOLE.log("There is no CUDA device here: working on the CPU.")
