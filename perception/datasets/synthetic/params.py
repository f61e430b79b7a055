"""The parameters that every family of pictures has."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PictureParams:
    """How many pictures of which sizes. A family inherits it and overrides the defaults that do not suit it."""

    num_train: int = field(default=160, metadata={"help": "number of training images"})
    num_val: int = field(default=40, metadata={"help": "number of validation images"})
    seed: int = field(default=0, metadata={"help": "another seed gives other scenes"})
    min_size: int = field(default=128, metadata={"help": "shortest image side in pixels"})
    max_size: int = field(default=256, metadata={"help": "longest image side in pixels"})

    def __post_init__(self):
        for name in ("num_train", "num_val"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.min_size < 64:
            raise ValueError(f"min_size must be at least 64 pixels, not {self.min_size}")
        if self.max_size < self.min_size:
            raise ValueError(f"max_size ({self.max_size}) must not be below min_size ({self.min_size})")
