"""Light from all around on the six faces of a cube: where texels lie, seamless look-up, to and from lat-long maps.

Faces are +x, -x, +y, -y, +z, -z in the order and orientation of OpenGL and nvdiffrast: a point (x, y) of a face, x to
the right and y down, both in [-1, 1], lies in the direction

    0: (1, -y, -x)   1: (-1, -y, x)   2: (x, 1, y)   3: (x, -1, -y)   4: (x, -y, 1)   5: (-x, -y, -1)

Contents look mirrored from inside, as cube maps do. A *lat-long map* (H, W) has z up: its rows go down from +z, its
middle column looks along +x, and columns to the right turn towards -y. With y up (nvdiffrec's maps) the middle column
looks along -z, and columns to the right turn towards +x.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Up = Literal["z", "y"]


def face_points(face: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Points (..., 3) on the cube [-1, 1]^3 of places (...) on faces (...)."""
    one = torch.ones_like(x)
    table = torch.stack(
        [
            torch.stack([one, -y, -x], -1),
            torch.stack([-one, -y, x], -1),
            torch.stack([x, one, y], -1),
            torch.stack([x, -one, -y], -1),
            torch.stack([x, -y, one], -1),
            torch.stack([-x, -y, -one], -1),
        ]
    )
    return table.gather(0, face[None, ..., None].expand(1, *face.shape, 3))[0]


def face_places(directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Face (M,) that directions (M, 3) of any length meet, and the place (x, y) there, each (M,) in [-1, 1].

    z wins over y, and y over x, only where it is larger (nvdiffrast's order).
    """
    x, y, z = directions.unbind(-1)
    ax, ay, az = x.abs(), y.abs(), z.abs()
    along_z = az > torch.maximum(ax, ay)
    along_y = ~along_z & (ay > ax)
    axis = torch.where(along_z, 2, torch.where(along_y, 1, 0))
    major = torch.where(along_z, z, torch.where(along_y, y, x))
    face = axis * 2 + (major < 0).long()
    size = major.abs()
    size = torch.where(size == 0, torch.ones_like(size), size)
    sign = torch.where(major < 0, -1.0, 1.0).to(x)
    right = torch.where(axis == 0, -sign * z, torch.where(axis == 1, x, sign * x))
    down = torch.where(axis == 1, sign * z, -y)
    return face, right / size, down / size


def _grid(place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Face, x and y (6, P, P) of all pairs of places (P,), row by row."""
    face, y, x = torch.meshgrid(torch.arange(6.0, dtype=place.dtype), place, place, indexing="ij")
    return face.long(), x, y


@lru_cache(32)
def texel_points(size: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64) -> Tensor:
    """Centres (6, size, size, 3) of all texels on the cube [-1, 1]^3."""
    place = (torch.arange(size, dtype=torch.float64) + 0.5) * 2 / size - 1
    return face_points(*_grid(place)).to(device, dtype)


def texel_directions(size: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
    """Unit directions (6, size, size, 3) of all texels."""
    return F.normalize(texel_points(size), dim=-1).to(device, dtype)


@lru_cache(32)
def _wrapped(size: int, device: torch.device | str) -> Tensor:
    """Number of the texel at each place of the faces with a rim of one texel (6, size + 2, size + 2), -1 in corners."""
    place = (torch.arange(-1, size + 1, dtype=torch.float64) + 0.5) * 2 / size - 1
    points = face_points(*_grid(place)).reshape(-1, 3)
    # Over an edge the direction of a texel of the rim lies in its neighbour, by less than half a texel beside its
    # centre.
    on, right, down = face_places(points)
    column, row = (((v + 1) * size / 2).floor().long().clamp(0, size - 1) for v in (right, down))
    number = ((on * size + row) * size + column).view(6, size + 2, size + 2)
    number[:, 1:-1, 1:-1] = torch.arange(6 * size * size).view(6, size, size)
    for row in (0, -1):
        for column in (0, -1):
            number[:, row, column] = -1
    return number.to(device)


def sample_cube(texels: Tensor, directions: Tensor) -> Tensor:
    """Bilinear look-up across the edges of faces.

    At an edge the neighbouring face's texels take part; at a corner, where three texels meet, their mean stands for the
    fourth. Differentiable by texels and directions.

    Args:
        texels: (6, N, N, C).
        directions: (..., 3), of any length.

    Returns:
        (..., C).
    """
    size, channels = texels.shape[1], texels.shape[3]
    face, x, y = face_places(directions.reshape(-1, 3))
    column, row = ((v + 1) * (size / 2) - 0.5 for v in (x, y))
    left, top = (v.detach().floor().clamp(-1, size - 1) for v in (column, row))
    right_share, lower_share = column - left, row - top
    left, top = left.long() + 1, top.long() + 1  # in the table with the rim
    table = _wrapped(size, texels.device)
    numbers = torch.stack([table[face, top + down, left + right] for down in (0, 1) for right in (0, 1)], -1)  # (M, 4)
    weights = torch.stack(
        [
            (1 - lower_share) * (1 - right_share),
            (1 - lower_share) * right_share,
            lower_share * (1 - right_share),
            lower_share * right_share,
        ],
        -1,
    )
    missing = numbers < 0
    spread = torch.where(missing, weights, 0).sum(-1, keepdim=True) / 3
    weights = torch.where(missing, torch.zeros_like(weights), weights + spread)
    found = texels.reshape(-1, channels)[numbers.clamp(min=0)]  # (M, 4, C)
    return (found * weights[..., None]).sum(1).view(*directions.shape[:-1], channels)


def sample_mips(levels: list[Tensor], directions: Tensor, level: Tensor) -> Tensor:
    """Trilinear look-up in maps of falling size.

    Args:
        levels: L of (6, N, N, C).
        directions: (..., 3).
        level: (...), clamped to [0, L - 1].

    Returns:
        (..., C), differentiable by all three.
    """
    flat, level = directions.reshape(-1, 3), level.reshape(-1).clamp(0, len(levels) - 1)
    lower = level.detach().floor().long().clamp(max=max(len(levels) - 2, 0))
    # At both ends there is no level beyond, and so no slope (nvdiffrast's rule).
    between = (level > 0) & (level < len(levels) - 1)
    share = (torch.where(between, level, level.detach()) - lower)[:, None]
    result = flat.new_zeros(len(flat), levels[0].shape[3])
    for number, texels in enumerate(levels):
        for chosen, weight in ((lower == number, 1 - share), (lower == number - 1, share)):
            places = chosen.nonzero()[:, 0]
            if len(places):
                result = result.index_add(0, places, sample_cube(texels, flat[places]) * weight[places])
    return result.view(*directions.shape[:-1], result.shape[1])


# Lat-long maps


def latlong_directions(
    height: int,
    width: int,
    *,
    up: Up = "z",
    mirrored: bool = False,
    released_rows: bool = False,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Unit directions (H, W, 3) of the pixels' centres; of the published code's rows, which go from 1 / H to 1 - 1 / H
    of the way down, if so asked; for ``mirrored`` see :func:`sample_latlong`."""
    if released_rows:
        v = torch.linspace(1 / height, 1 - 1 / height, height, device=device, dtype=torch.float64) * math.pi
    else:
        v = (torch.arange(height, device=device, dtype=torch.float64) + 0.5) / height * math.pi
    u = (torch.arange(width, device=device, dtype=torch.float64) + 0.5) / width
    u = ((_mirrored(u) if mirrored else u) - 0.5) * 2 * math.pi
    v, u = torch.meshgrid(v, u, indexing="ij")
    if up == "y":
        return torch.stack([v.sin() * u.sin(), v.cos(), -v.sin() * u.cos()], -1).float()
    return torch.stack([v.sin() * u.cos(), -v.sin() * u.sin(), v.cos()], -1).float()


def latlong_places(directions: Tensor, *, up: Up = "z") -> tuple[Tensor, Tensor]:
    """Where directions (..., 3) of any length lie in a lat-long map: (...) shares of its width and height."""
    x, y, z = F.normalize(directions, dim=-1).unbind(-1)
    turn, height = (torch.atan2(x, -z), y) if up == "y" else (torch.atan2(-y, x), z)
    return turn / (2 * math.pi) + 0.5, height.clamp(-1, 1).acos() / math.pi


def _mirrored(u: Tensor) -> Tensor:
    return torch.where(u < 0.5, 0.5 - u, 1.5 - u)


def sample_latlong(
    image: Tensor, directions: Tensor, *, up: Up = "z", mirrored: bool = False, wrap_rows: bool = False
) -> Tensor:
    """Colours (..., C) that a lat-long map (H, W, C) shows in directions (..., 3).

    Bilinear, from pixel centres; columns go around, rows end at the poles.

    Args:
        image: the map.
        directions: of any length.
        up: the axis that its upper edge is.
        mirrored: its columns go the other way around from the middle of the right half (the "nmf" variant).
        wrap_rows: within half a pixel of a pole, mix in the row at the other pole, as the released code does.
    """
    height, width = image.shape[:2]
    u, v = latlong_places(directions, up=up)
    if mirrored:
        u = _mirrored(u)
    column, row = u * width - 0.5, v * height - 0.5
    left, top = column.floor(), row.floor()
    right_share, lower_share = (column - left)[..., None], (row - top)[..., None]
    left, top = left.long(), top.long()
    rows = [(top + down) % height if wrap_rows else (top + down).clamp(0, height - 1) for down in (0, 1)]
    columns = [(left + right) % width for right in (0, 1)]
    above = image[rows[0], columns[0]] * (1 - right_share) + image[rows[0], columns[1]] * right_share
    below = image[rows[1], columns[0]] * (1 - right_share) + image[rows[1], columns[1]] * right_share
    return above * (1 - lower_share) + below * lower_share


def latlong_to_cube(
    image: Tensor, size: int, *, up: Up = "z", mirrored: bool = False, wrap_rows: bool = True
) -> Tensor:
    """A lat-long map (H, W, C) on faces of ``size`` texels: (6, size, size, C); see :func:`sample_latlong`.

    Rows wrap by default, as where the published lights come from; it shows in maps with fewer rows than texels alone.
    """
    directions = texel_directions(size, image.device)
    return sample_latlong(image, directions, up=up, mirrored=mirrored, wrap_rows=wrap_rows)


def cube_to_latlong(
    texels: Tensor, height: int, width: int, *, up: Up = "z", mirrored: bool = False, released_rows: bool = False
) -> Tensor:
    """Faces (6, N, N, C) as a lat-long map (height, width, C); see :func:`latlong_directions`, and for ``mirrored``
    :func:`sample_latlong`."""
    directions = latlong_directions(
        height, width, up=up, mirrored=mirrored, released_rows=released_rows, device=texels.device
    )
    return sample_cube(texels, directions)
