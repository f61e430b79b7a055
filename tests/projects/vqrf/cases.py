"""Small compressed fields for tests."""

import torch

from perception.radiance.dvgo import DirectVoxGO
from projects.vqrf.codebook import VectorQuantizer
from projects.vqrf.compression import CompressedGrids, compress_field
from projects.vqrf.pruning import split_voxels

RENDER = {"near": 0.5, "far": 6.0, "stepsize": 0.5, "background": [1.0, 1.0, 1.0], "dataparser": None}


def fine_field(voxels=12**3, width=16) -> DirectVoxGO:
    """A field around a ball of random features."""
    field = DirectVoxGO(
        [-1.0, -1.1, -0.9],
        [1.0, 0.9, 1.0],
        num_voxels=voxels,
        num_voxels_base=voxels,
        alpha_init=1e-2,
        fast_color_thres=1e-4,
        rgbnet_dim=12,
        rgbnet_width=width,
        align_corners=False,
    )
    field.act_shift -= 4
    radius = field.grid_points().norm(dim=-1)
    field.density.grid.data[0, 0] = 12 * (0.7 - radius).clamp(min=-0.3) + 0.5 * torch.randn(field.world_size)
    field.k0.grid.data.normal_()
    return field


def compressed_field(voxels=12**3, codebook_size=16, prune=0.99, keep=0.5) -> tuple[DirectVoxGO, CompressedGrids]:
    """A field and its compressed form."""
    field = fine_field(voxels)
    scores = field.density.table()[:, 0].clamp(min=0) * torch.rand(field.density.table().shape[0])
    classes = split_voxels(scores, prune, keep)
    quantizer = VectorQuantizer(12, codebook_size, k_expire=4)
    quantizer.initialise(field.k0.table()[classes.vq], scores[classes.vq], steps=20, batch=200)
    codes = quantizer.assign(field.k0.table()[classes.vq])
    return field, compress_field(field, classes, quantizer.embed, codes, RENDER)
