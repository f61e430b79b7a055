"""From a field to its compressed form and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.grids import dilate
from projects.vqrf.classes import VoxelClasses
from projects.vqrf.codebook import VectorQuantizer
from projects.vqrf.compressed import CompressedGrids, decode_grids
from projects.vqrf.quantization import quantize_int8


class CompressionRecord(NamedTuple):
    """Choices of an earlier compression."""

    density: tuple[float, int]  # scale and zero point
    kept: tuple[float, int]
    codes: Tensor  # of the quantised voxels


@torch.no_grad()
def compress_field(
    field: DirectVoxGO,
    classes: VoxelClasses,
    quantizer: VectorQuantizer,
    render: dict[str, Any],
    like: CompressionRecord | None = None,
) -> CompressedGrids:
    """The compressed form of a fine field.

    Args:
        field: with a colour network.
        classes: of its voxels.
        quantizer: whose codewords stand for the features of the quantised class. Nearest ones are looked up anew.
        render: what rendering needs besides the field: ``near``, ``far``, ``stepsize``, ``background``.
        like: how the field was compressed before. It then gives the same file again, which choosing anew would not.
    """
    density, k0 = field.density.table()[:, 0], field.k0.table()
    stored_density = quantize_int8(density[classes.non_prune], like and like.density)
    kept = quantize_int8(k0[classes.keep], like and like.kept)
    codes = quantizer.assign(k0[classes.vq]) if like is None else like.codes
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
        codebook=quantizer.embed.half().cpu(),
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
