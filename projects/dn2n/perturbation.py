"""What a 2D editor leaves different between views, imitated: gains, hues, colour fields, warps, noise, blur, patches.

The paper trains on images of a real editor; this stand-in is the project's, and every number of it a setting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kornia.color import hsv_to_rgb, rgb_to_hsv
from kornia.filters import gaussian_blur2d
from torch import Tensor


@dataclass
class PerturbationSettings:
    """Settings of :func:`perturb`; each term comes with the same probability."""

    probability: float = 0.7
    """Of each term; 0 leaves images as they are."""
    gain: float = 0.15
    """Largest change of a channel's gain."""
    bias: float = 0.06
    """Largest offset of a channel."""
    gamma: tuple[float, float] = (0.8, 1.25)
    """Smallest and largest exponent of a channel."""
    hue: float = 12.0
    """Largest turn of the hue, in degrees."""
    saturation: float = 0.3
    """Largest change of the saturation, as a share."""
    field: float = 0.06
    """Standard deviation of a smooth field of colours, 4 x 4 numbers across the image."""
    warp: float = 1.5
    """Standard deviation of a smooth field of shifts in pixels, 6 x 6 numbers across the image."""
    noise: float = 0.04
    """Largest standard deviation of noise at half the resolution."""
    blur: float = 1.0
    """Largest standard deviation of a Gaussian blur, in pixels."""
    patches: int = 3
    """Largest number of rectangles that have gains of their own; at least one."""


def seeded(*numbers: int) -> torch.Generator:
    """A generator on the CPU that belongs to some whole numbers, in their order."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % (2**61 - 1)
    return torch.Generator().manual_seed(mixed)


def perturb(image: Tensor, settings: PerturbationSettings, *, seed: int, view: int) -> Tensor:
    """An image (3, H, W) in [0, 1], perturbed as the seed and the number of its view say, and clamped."""
    random = seeded(seed, view)
    original = image
    # Always as many draws as there are terms, so that one term's probability does not move the others.
    chosen = torch.rand(7, generator=random) < settings.probability
    image = image.cpu()
    for term, take in zip(TERMS, chosen.tolist()):
        if take:
            image = term(image, settings, random)
    return image.clamp(0, 1).to(original) if bool(chosen.any()) else original


def perturb_views(
    images: Tensor, settings: PerturbationSettings, *, seed: int, views: list[int], strength: float = 1.0
) -> Tensor:
    """Images (V, 3, H, W), each perturbed by itself; ``strength`` mixes them with what they were."""
    changed = torch.stack([perturb(image, settings, seed=seed, view=view) for image, view in zip(images, views)])
    return changed if strength == 1 else torch.lerp(images, changed, strength)


def _uniform(random: torch.Generator, low: float, high: float, *size: int) -> Tensor:
    return low + (high - low) * torch.rand(*(size or (1,)), generator=random)


def _tone(image: Tensor, settings: PerturbationSettings, random: torch.Generator) -> Tensor:
    gain = _uniform(random, 1 - settings.gain, 1 + settings.gain, 3)
    bias = _uniform(random, -settings.bias, settings.bias, 3)
    gamma = _uniform(random, *settings.gamma, 3)
    return (image * gain[:, None, None] + bias[:, None, None]).clamp(0, 1) ** gamma[:, None, None]


def _hue(image: Tensor, settings: PerturbationSettings, random: torch.Generator) -> Tensor:
    turn = math.radians(float(_uniform(random, -settings.hue, settings.hue)))
    factor = float(_uniform(random, 1 - settings.saturation, 1 + settings.saturation))
    hue, saturation, value = rgb_to_hsv(image.clamp(0, 1)).unbind(-3)
    changed = torch.stack([(hue + turn) % (2 * math.pi), (saturation * factor).clamp(0, 1), value], -3)
    return hsv_to_rgb(changed)


def _grown(grid: Tensor, image: Tensor) -> Tensor:
    return F.interpolate(grid[None], size=image.shape[-2:], mode="bicubic", align_corners=True)[0]


def _field(image: Tensor, settings: PerturbationSettings, random: torch.Generator) -> Tensor:
    return image + _grown(settings.field * torch.randn(3, 4, 4, generator=random), image)


def _warp(image: Tensor, settings: PerturbationSettings, random: torch.Generator) -> Tensor:
    height, width = image.shape[-2:]
    flow = _grown(settings.warp * torch.randn(2, 6, 6, generator=random), image)  # (2, H, W) pixels
    v, u = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    grid = torch.stack([u + 2 * flow[0] / max(width - 1, 1), v + 2 * flow[1] / max(height - 1, 1)], -1)
    return F.grid_sample(image[None], grid[None], padding_mode="border", align_corners=True)[0]


def _noise(image: Tensor, settings: PerturbationSettings, random: torch.Generator) -> Tensor:
    sigma = float(_uniform(random, 0, settings.noise))
    half = [math.ceil(side / 2) for side in image.shape[-2:]]
    noise = sigma * torch.randn(1, 3, *half, generator=random)
    return image + F.interpolate(noise, size=image.shape[-2:], mode="bilinear", align_corners=False)[0]


def _blur(image: Tensor, settings: PerturbationSettings, random: torch.Generator) -> Tensor:
    sigma = float(_uniform(random, 0, settings.blur))
    if sigma < 0.05:  # narrower than its kernel can tell from none
        return image
    return gaussian_blur2d(image[None], (7, 7), (sigma, sigma), border_type="replicate")[0]


def _patches(image: Tensor, settings: PerturbationSettings, random: torch.Generator) -> Tensor:
    height, width = image.shape[-2:]
    image = image.clone()
    for _ in range(int(torch.randint(1, settings.patches + 1, (1,), generator=random))):
        share, place = _uniform(random, 0.05, 0.2, 2), torch.rand(2, generator=random)
        h, w = max(1, round(float(share[0]) * height)), max(1, round(float(share[1]) * width))
        row, column = round(float(place[0]) * (height - h)), round(float(place[1]) * (width - w))
        part = image[:, row : row + h, column : column + w]
        image[:, row : row + h, column : column + w] = _tone(part, settings, random)
    return image


TERMS = (_tone, _hue, _field, _warp, _noise, _blur, _patches)
"""In the order in which they are applied."""
