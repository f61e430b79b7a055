"""IFF, inter-level feature fusion: maps of a patch take up what detectors of reduced images see at the same place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FusionConv(nn.Module):
    """Convolution and ReLU; the weights are named as those of mmcv's ``ConvModule``."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()


class InterLevelFusion(nn.ModuleList):
    """Fuses the pyramid of features of a patch with those of crops of reduced images.

    On an image reduced by 2^k, level g of a pyramid has the stride that level g + k has on the native one, so that maps
    go together without resampling. The finest level of a reduced image's pyramid is never used: with reductions by 2
    and 4, of P2 to P6 only P4 takes one map, P5 and P6 two. A level that takes m maps is fused by convolution m - 1.

    The released code keeps only the last of several maps and then fails; here all are used, as its sizes intend.

    Args:
        channels: of all maps.
        most: maps that one level can take; 5 in the released detector.
    """

    def __init__(self, channels: int = 256, most: int = 5):
        super().__init__(FusionConv((count + 1) * channels, channels) for count in range(1, most + 1))

    def forward(
        self,
        local_maps: Sequence[Tensor],
        context_maps: Sequence[Tensor],
        inside: Sequence[Sequence[float]],
        factors: Sequence[int],
    ) -> tuple[Tensor, ...]:
        """Fused maps of one patch.

        Args:
            local_maps: (1, C, h_l, w_l) of the patch, from fine to coarse.
            context_maps: (R, C, H_l, W_l) of R crops, from fine to coarse.
            inside: for each crop, where the patch lies in it, as shares (left, top, right, bottom).
            factors: for each crop, the reduction of its image: a power of two from 2 on.

        Returns:
            Maps of the shapes of ``local_maps``; those that no crop reaches are the very same.

        Raises:
            ValueError: numbers of crops differ, a factor is no power of two, a patch is not inside of its crop or
                larger or smaller there than its factor says, or a level takes more maps than the module was made for.
        """
        count = len(context_maps[0])
        if not count == len(inside) == len(factors):
            raise ValueError(
                f"maps of {count} crops need as many places and factors, got {len(inside)}, {len(factors)}"
            )
        offsets = [_log2(factor) for factor in factors]
        fused = []
        for level, local in enumerate(local_maps):
            taken = [
                crop_to_patch(context_maps[level - offset][k : k + 1], inside[k], local.shape[-2:])
                for k, offset in enumerate(offsets)
                if 0 < level - offset < len(context_maps)
            ]
            if len(taken) > len(self):
                raise ValueError(f"level {level} takes {len(taken)} maps, the fusion was made for at most {len(self)}")
            fused.append(self[len(taken) - 1](torch.cat([local, *taken], 1)) if taken else local)
        return tuple(fused)


def crop_to_patch(x: Tensor, inside: Sequence[float], size: Sequence[int]) -> Tensor:
    """The part of a crop's map (N, C, H, W) that shows the patch, of ``size`` rows and columns.

    Args:
        inside: shares (left, top, right, bottom) of the crop.

    Raises:
        ValueError: the patch is not inside, or more than a cell larger or smaller than ``size``.
    """
    left, top, right, bottom = inside
    rows, columns = _span(top, bottom, x.shape[-2], size[0]), _span(left, right, x.shape[-1], size[1])
    return x[..., rows, columns]


def _span(start: float, end: float, cells: int, length: int) -> slice:
    if not -1e-6 <= start < end <= 1 + 1e-6:
        raise ValueError(f"a patch must lie in its crop, not from {start} to {end} of it")
    if abs((end - start) * cells - length) > 1:
        raise ValueError(f"the patch covers {(end - start) * cells:.2f} cells of its crop's map, but has {length}")
    # A little more, as 0.1 * 30 is just less than 3.
    first = max(min(int(start * cells + 1e-4), cells - length), 0)
    if first + length > cells:
        raise ValueError(f"the patch has {length} cells, its crop's map only {cells}")
    return slice(first, first + length)


def _log2(factor: int) -> int:
    if factor < 2 or factor & (factor - 1):
        raise ValueError(f"a factor must be 2, 4, 8 or so on, not {factor}")
    return factor.bit_length() - 1
