"""A compressed field in memory, what a file holds; from a field to it and back (paper sections 3.3 to 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.grids import dilate
from projects.vqrf.pruning import VoxelClasses
from projects.vqrf.quantization import Int8Tensor, quantize_int8


@dataclass(frozen=True)
class CompressedGrids:
    """Everything that is needed to render a compressed field. V voxels in (x, y, z) order, C features, K codewords."""

    world_size: tuple[int, int, int]
    xyz_min: Tensor  # (3,) float32
    xyz_max: Tensor  # (3,) float32
    act_shift: float
    field_kwargs: dict[str, Any]  # arguments of DirectVoxGO besides the box, JSON values
    render: dict[str, Any]  # near, far, stepsize, background: JSON values
    non_prune: Tensor  # (V,) bool
    keep: Tensor  # (V,) bool
    density: Int8Tensor  # (number of non_prune,)
    kept: Int8Tensor  # (number of keep, C)
    codes: Tensor  # (number of non_prune and not keep,) int64
    codebook: Tensor  # (K, C) float16
    rgbnet: dict[str, Tensor]  # float16, by the names within ``rgbnet``

    @property
    def classes(self) -> VoxelClasses:
        """Which voxels are dropped, quantised or kept."""
        return VoxelClasses(self.non_prune, self.keep)


class Scales(NamedTuple):
    """Scale and zero point of 8-bit numbers."""

    density: tuple[float, int]
    kept: tuple[float, int]


@torch.no_grad()
def compress_field(
    field: DirectVoxGO,
    classes: VoxelClasses,
    codebook: Tensor,
    codes: Tensor,
    render: dict[str, Any],
    scales: Scales | None = None,
) -> CompressedGrids:
    """The compressed form of a fine field.

    Args:
        field: with a colour network.
        classes: of its voxels.
        codebook: (K, C) codewords.
        codes: numbers of the codewords that stand for the features of the quantised voxels, in their order.
        render: what rendering needs besides the field: ``near``, ``far``, ``stepsize``, ``background``.
        scales: of an earlier compression of this very field, which then gives the same 8-bit numbers again; scales
            chosen anew would differ a little.
    """
    stored_density = quantize_int8(field.density.table()[classes.non_prune, 0], scales and scales.density)
    kept = quantize_int8(field.k0.table()[classes.keep], scales and scales.kept)
    return CompressedGrids(
        world_size=field.world_size,
        xyz_min=field.xyz_min.cpu(),
        xyz_max=field.xyz_max.cpu(),
        act_shift=float(field.act_shift),
        field_kwargs=field.settings(),
        render=render,
        non_prune=classes.non_prune.cpu(),
        keep=classes.keep.cpu(),
        density=stored_density._replace(values=stored_density.values.cpu()),
        kept=kept._replace(values=kept.values.cpu()),
        codes=codes.cpu(),
        codebook=codebook.half().cpu(),
        rgbnet={name: value.half().cpu() for name, value in field.rgbnet.state_dict().items()},
    )


@torch.no_grad()
def load_into(field: DirectVoxGO, compressed: CompressedGrids) -> None:
    """Give a field of the right size the numbers of a compressed one.

    Its mask becomes the remaining voxels and their neighbours, less what is free; samples elsewhere read only dropped
    voxels.
    """
    device = field.xyz_min.device
    density, k0 = decode_grids(compressed)
    field.density.table()[:, 0] = density.to(device)
    field.k0.table()[:] = k0.to(device)
    field.act_shift.fill_(compressed.act_shift)
    field.rgbnet.load_state_dict({name: value.float() for name, value in compressed.rgbnet.items()})
    # A point's cell of the mask and a voxel it is interpolated from are at most one step apart, in both conventions.
    field.set_mask(dilate(compressed.non_prune.view(field.world_size), (1, 1, 1)).to(device))
    field.update_occupancy_cache()


def field_of(compressed: CompressedGrids) -> DirectVoxGO:
    """The field that a compressed one stands for.

    Raises:
        ValueError: its resolution does not follow from its box and number of voxels.
    """
    field = DirectVoxGO(compressed.xyz_min, compressed.xyz_max, **compressed.field_kwargs)
    if field.world_size != tuple(compressed.world_size):
        raise ValueError(f"a grid of {compressed.world_size} voxels does not fit its box: {field.world_size} expected")
    load_into(field, compressed)
    return field


def decode_grids(compressed: CompressedGrids) -> tuple[Tensor, Tensor]:
    """The grids that it stands for: density (V,) and features (V, C) float32, 0 where voxels are dropped."""
    classes, codebook = compressed.classes, compressed.codebook.float()
    density = torch.zeros(len(classes.keep))
    density[classes.non_prune] = compressed.density.dequantize()
    k0 = torch.zeros(len(classes.keep), codebook.shape[1])
    k0[classes.vq] = codebook[compressed.codes]
    k0[classes.keep] = compressed.kept.dequantize()
    return density, k0
