"""Colours, noise, textured backgrounds and shaded surfaces for synthetic pictures.

Pictures are `float32` `[H, W, 3]` RGB in [0, 1]. Every function draws from the generator it is given and from nothing
else, so that equal generators give equal pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Colour = tuple[float, float, float]

# ---------------------------------------------------------------------------------------------------------- colours


def from_hsv(hue: float, saturation: float, value: float) -> Colour:
    """RGB in [0, 1] of a hue in turns (any real number), a saturation and a value in [0, 1]."""
    sector = (hue % 1.0) * 6
    distances = np.array([abs(sector - 3) - 1, 2 - abs(sector - 2), 2 - abs(sector - 4)])
    rgb = value * (1 - saturation * (1 - np.clip(distances, 0, 1)))
    return tuple(float(c) for c in rgb)


def muted_palette(rng: np.random.Generator) -> tuple[Colour, Colour, Colour]:
    """Three related colours of low saturation: base, variation and accent of a background."""
    hue, saturation, value = rng.uniform(), rng.uniform(0.05, 0.38), rng.uniform(0.22, 0.85)
    steps = rng.uniform(-1, 1, size=(3, 3)) * [0.05, 0.06, 0.14]
    # The accent is what makes the texture visible, so it keeps a distance in brightness.
    steps[2, 2] = 0.16 if value < 0.5 else -0.16
    return tuple(from_hsv(hue + h, np.clip(saturation + s, 0, 1), np.clip(value + v, 0.08, 0.95)) for h, s, v in steps)


def vivid_colour(rng: np.random.Generator) -> Colour:
    """A saturated colour of any hue."""
    return from_hsv(rng.uniform(), rng.uniform(0.6, 0.95), rng.uniform(0.6, 1.0))


def colour_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Perceptual distance (CIE76, in L*a*b* units) of RGB colours: `[N, 3]`, `[M, 3]` -> `[N, M]`."""
    lab_a, lab_b = (cv2.cvtColor(np.float32(c).reshape(-1, 1, 3), cv2.COLOR_RGB2LAB)[:, 0] for c in (a, b))
    return np.linalg.norm(lab_a[:, None] - lab_b[None], axis=-1)


# ------------------------------------------------------------------------------------------------------------ noise


def value_noise(rng: np.random.Generator, height: int, width: int, *, cell: float, octaves: int = 1) -> np.ndarray:
    """Smooth noise `float32` `[height, width]` in [0, 1] whose largest blobs are about `cell` pixels wide."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        grid = rng.random((int(height / step) + 2, int(width / step) + 2), dtype=np.float32)
        # Cut from a larger resized grid: the blob size then does not depend on how the cells fit the picture.
        size = (max(round(grid.shape[1] * step), width), max(round(grid.shape[0] * step), height))
        total += cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)[:height, :width] / 2**octave
    return cv2.normalize(total, None, 0.0, 1.0, cv2.NORM_MINMAX)


def _turned_coordinates(height: int, width: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _mix(weight: np.ndarray, a: Colour, b: Colour) -> np.ndarray:
    """`[H, W]` weights -> `[H, W, 3]`: colour `a` where the weight is 0, `b` where it is 1."""
    low, high = np.float32(a), np.float32(b)
    return low + weight[..., None] * (high - low)


# ------------------------------------------------------------------------------------------------------ backgrounds


def _clouds(rng: np.random.Generator, height: int, width: int, palette: tuple[Colour, ...]) -> np.ndarray:
    weight = value_noise(rng, height, width, cell=rng.uniform(40, 90), octaves=4)
    return _mix(weight, palette[0], palette[2])


def _bands(rng: np.random.Generator, height: int, width: int, palette: tuple[Colour, ...]) -> np.ndarray:
    along, _ = _turned_coordinates(height, width, rng.uniform(0, np.pi))
    bend = value_noise(rng, height, width, cell=rng.uniform(50, 110), octaves=2)
    waves = np.sin(along * np.float32(2 * np.pi / rng.uniform(10, 26)) + bend * np.float32(rng.uniform(3, 9)))
    return _mix(0.5 + 0.35 * waves, palette[0], palette[2])


def _brushed(rng: np.random.Generator, height: int, width: int, palette: tuple[Colour, ...]) -> np.ndarray:
    side = int(np.hypot(height, width)) + 2
    fibres = value_noise(rng, side // 8, side, cell=3, octaves=2)
    streaks = cv2.resize(fibres, (side, side), interpolation=cv2.INTER_CUBIC)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(0, 180), 1.0)
    turn[:, 2] += (width - side) / 2, (height - side) / 2
    weight = cv2.warpAffine(streaks, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
    return _mix(np.clip(weight, 0, 1), palette[0], palette[2])


def _tiles(rng: np.random.Generator, height: int, width: int, palette: tuple[Colour, ...]) -> np.ndarray:
    along, across = _turned_coordinates(height, width, rng.uniform(0, np.pi))
    pitch = rng.uniform(22, 48)
    along, across = along / pitch + 1000, across / pitch + 1000
    column, row = along.astype(np.int32), across.astype(np.int32)
    shades = rng.random((64, 64), dtype=np.float32)[row % 64, column % 64]
    gap = np.float32(1.2 / pitch)
    grout = (along - column < gap) | (across - row < gap)
    tiles = _mix(shades * 0.8, palette[0], palette[1])
    tiles[grout] = palette[2]
    return cv2.GaussianBlur(tiles, (3, 3), 0)


def _terrazzo(rng: np.random.Generator, height: int, width: int, palette: tuple[Colour, ...]) -> np.ndarray:
    seeds = np.full((height, width), 255, np.uint8)
    count = max(height * width // int(rng.uniform(150, 500)), 2)
    seeds[rng.integers(height, size=count), rng.integers(width, size=count)] = 0
    _, cells = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    shades = rng.random(count + 1, dtype=np.float32) ** 2
    return cv2.GaussianBlur(_mix(shades[cells], palette[0], palette[2]), (3, 3), 0)


BACKGROUNDS: dict[str, Callable[..., np.ndarray]] = {
    "clouds": _clouds,
    "bands": _bands,
    "brushed": _brushed,
    "tiles": _tiles,
    "terrazzo": _terrazzo,
}
"""Kinds of background texture: `(rng, height, width, palette) -> picture`."""


def background(
    rng: np.random.Generator, height: int, width: int, *, kind: str, palette: tuple[Colour, ...]
) -> np.ndarray:
    """A textured, unevenly lit background `[height, width, 3]`.

    Args:
        kind: a key of `BACKGROUNDS`.
        palette: base, variation and accent, as from `muted_palette`.
    """
    picture = BACKGROUNDS[kind](rng, height, width, palette)
    along, _ = _turned_coordinates(height, width, rng.uniform(0, 2 * np.pi))
    light = cv2.normalize(along, None, -1.0, 1.0, cv2.NORM_MINMAX) * np.float32(rng.uniform(0.05, 0.22))
    return picture * (1 + light)[..., None]


def add_grain(rng: np.random.Generator, picture: np.ndarray, strength: float) -> np.ndarray:
    """Add fine brightness noise of standard deviation `strength`, as a sensor does."""
    grain = rng.standard_normal(picture.shape[:2], dtype=np.float32) * np.float32(strength)
    return picture + grain[..., None]


# --------------------------------------------------------------------------------------------------------- surfaces


def _plain(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return np.zeros((height, width), np.float32)


def _striped(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    along, _ = _turned_coordinates(height, width, rng.uniform(0, np.pi))
    period = max(min(height, width) * rng.uniform(0.16, 0.3), 4.0)
    return np.clip(2 * np.sin(along * np.float32(2 * np.pi / period)), -1, 1)


def _dotted(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    along, across = _turned_coordinates(height, width, rng.uniform(0, np.pi))
    frequency = np.float32(2 * np.pi / max(min(height, width) * rng.uniform(0.2, 0.3), 5.0))
    return np.clip(3 * (np.sin(along * frequency) * np.sin(across * frequency) - 0.45), -1, 1)


def _marbled(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return 2 * value_noise(rng, height, width, cell=max(min(height, width) * 0.4, 3.0), octaves=3) - 1


SURFACES: dict[str, Callable[..., np.ndarray]] = {
    "plain": _plain,
    "striped": _striped,
    "dotted": _dotted,
    "marbled": _marbled,
}
"""Kinds of surface pattern: `(rng, height, width) -> [H, W]` brightness in [-1, 1]."""


def surface(
    rng: np.random.Generator, coverage: np.ndarray, *, kind: str, colour: Colour, light: float, contrast: float
) -> np.ndarray:
    """The picture `[h, w, 3]` of a slightly domed object with a patterned surface.

    Args:
        coverage: `float32` `[h, w]` in [0, 1], where the object is; its blurred edge gives the dome.
        kind: a key of `SURFACES`.
        light: the direction that light comes from, in radians clockwise from +x.
        contrast: how strongly the pattern changes the brightness, for instance 0.2.
    """
    height, width = coverage.shape
    pattern = SURFACES[kind](rng, height, width) * np.float32(contrast)
    dome = cv2.GaussianBlur(coverage, (0, 0), max(min(height, width) * 0.07, 0.6))
    slope_x, slope_y = cv2.Sobel(dome, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(dome, cv2.CV_32F, 0, 1, scale=1 / 8)
    # The height falls outwards, hence the minus; the factor undoes the slope's dependence on the object's size.
    facing = -(slope_x * np.float32(np.cos(light)) + slope_y * np.float32(np.sin(light)))
    facing *= np.float32(max(min(height, width) * 0.07, 0.6) * 1.3)
    shade = 1 + pattern + np.clip(facing, -0.45, 0.45)
    return shade[..., None] * np.float32(colour)
