"""The offset generator: resamples a map towards places that look alike (paper section 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What the convolutions of offsets look at: similarities alone (SegNeXt's weights), or features and similarities.
DIRECTION_FEATURES = ("sim", "sim_concat")
SCALE = 2  # of the map that is sampled, to the deep one


def local_similarity(x: Tensor, kernel_size: int = 3, dilation: int = 2) -> Tensor:
    """Cosine of each pixel with its neighbours; 0 for neighbours outside the map.

    Args:
        x: (B, C, H, W).
        kernel_size: of the square window, odd.
        dilation: distance between neighbours, in pixels.

    Returns:
        (B, kernel_size^2 - 1, H, W), neighbours row by row without the centre.
    """
    height, width = x.shape[2:]
    reach = kernel_size // 2 * dilation
    norm = x.norm(dim=1).clamp(min=1e-8)  # (B, H, W)
    padded, padded_norm = F.pad(x, [reach] * 4), F.pad(norm, [reach] * 4, value=1.0)
    similarities = []
    for tap in range(kernel_size**2):
        if tap == kernel_size**2 // 2:
            continue
        top, left = tap // kernel_size * dilation, tap % kernel_size * dilation
        window = (..., slice(top, top + height), slice(left, left + width))
        similarities.append((x * padded[window]).sum(1) / (norm * padded_norm[window]))
    return torch.stack(similarities, 1)


class LocalSimGuidedSampler(nn.Module):
    """Resamples a map of twice the size of ``lr_x`` at offsets predicted from local similarities.

    Args:
        in_channels: of both guides; divisible by ``in_channels // 8`` if they are normalised.
        groups: of channels that are sampled at offsets of their own.
        kernel_size: of the convolutions, odd.
        local_window: of the similarities, odd.
        sim_dilation: distance of their neighbours, in pixels.
        norm: normalise the guides by groups of channels.
        direction_feat: "sim_concat" (the weights for detection, panoptic segmentation and Mask2Former) or "sim" (those
            for SegNeXt).
        use_direct_scale: predict how far offsets reach; without, all of them are scaled by a quarter.

    Raises:
        ValueError: a setting that no weights exist for, or that cannot be built.
    """

    def __init__(
        self,
        in_channels: int,
        groups: int = 4,
        kernel_size: int = 3,
        local_window: int = 3,
        sim_dilation: int = 2,
        norm: bool = True,
        direction_feat: str = "sim_concat",
        use_direct_scale: bool = True,
    ):
        super().__init__()
        if direction_feat not in DIRECTION_FEATURES:
            raise ValueError(f"direction_feat must be one of {', '.join(DIRECTION_FEATURES)}, got {direction_feat!r}")
        if norm and (in_channels < 8 or in_channels % (in_channels // 8)):
            raise ValueError(
                f"{in_channels} channels cannot be normalised in groups of eight: choose a number divisible by its "
                f"eighth (16, 64, 104, 120, ...), or norm=False"
            )
        self.groups, self.local_window, self.sim_dilation = groups, local_window, sim_dilation
        self.direction_feat, self.use_direct_scale = direction_feat, use_direct_scale
        number = local_window**2 - 1
        joined = in_channels + number
        to_offset, to_scale = (number, in_channels) if direction_feat == "sim" else (joined, joined)
        lr_out, hr_out = 2 * groups * SCALE**2, 2 * groups
        padding = kernel_size // 2
        self.offset = nn.Conv2d(to_offset, lr_out, kernel_size, padding=padding)
        if use_direct_scale:
            self.direct_scale = nn.Conv2d(to_scale, lr_out, kernel_size, padding=padding)
        self.hr_offset = nn.Conv2d(to_offset, hr_out, kernel_size, padding=padding)
        if use_direct_scale:
            self.hr_direct_scale = nn.Conv2d(to_scale, hr_out, kernel_size, padding=padding)
        self.norm_hr = nn.GroupNorm(in_channels // 8, in_channels) if norm else nn.Identity()
        self.norm_lr = nn.GroupNorm(in_channels // 8, in_channels) if norm else nn.Identity()
        self.register_buffer("init_pos", self._initial_position())

    def _initial_position(self) -> Tensor:
        """Offsets at which the doubled map is left as it is: (1, 2 G s^2, 1, 1), channels (xy, group, row, column)."""
        place = (torch.arange(SCALE) - (SCALE - 1) / 2) / SCALE
        rows, columns = torch.meshgrid(place, place, indexing="ij")
        positions = torch.stack([columns, rows])[:, None].expand(-1, self.groups, -1, -1)
        return positions.reshape(1, -1, 1, 1).clone()

    def forward(self, hr_x: Tensor, lr_x: Tensor, feat2sample: Tensor) -> Tensor:
        """The resampled map.

        Args:
            hr_x: guide (B, C, 2h, 2w).
            lr_x: guide (B, C, h, w).
            feat2sample: (B, D, 2h, 2w), D divisible by the groups.
        """
        return self.sample(feat2sample, self.offsets(hr_x, lr_x))

    def offsets(self, hr_x: Tensor, lr_x: Tensor) -> Tensor:
        """Offsets (B, 2 G s^2, h, w) from the pixels of ``lr_x``, in its pixels."""
        hr_x, lr_x = self.norm_hr(hr_x), self.norm_lr(lr_x)
        hr_sim, lr_sim = (local_similarity(x, self.local_window, self.sim_dilation) for x in (hr_x, lr_x))
        if self.direction_feat == "sim_concat":
            hr_sim = hr_x = torch.cat([hr_x, hr_sim], 1)
            lr_sim = lr_x = torch.cat([lr_x, lr_sim], 1)
        direction = self.offset(lr_sim) + F.pixel_unshuffle(self.hr_offset(hr_sim), SCALE)
        if not self.use_direct_scale:
            return direction / 4 + self.init_pos
        strength = self.direct_scale(lr_x) + F.pixel_unshuffle(self.hr_direct_scale(hr_x), SCALE)
        return direction * strength.sigmoid() + self.init_pos

    def sample(self, feat2sample: Tensor, offsets: Tensor) -> Tensor:
        """Read a map (B, D, 2h, 2w) at offsets (B, 2 G s^2, h, w): (B, D, 2h, 2w)."""
        batch, _, height, width = offsets.shape
        centre = [torch.arange(size, device=offsets.device, dtype=offsets.dtype) + 0.5 for size in (height, width)]
        rows, columns = torch.meshgrid(*centre, indexing="ij")
        across, down = offsets.view(batch, 2, -1, height, width).unbind(1)
        place = torch.cat([2 * (columns + across) / width - 1, 2 * (rows + down) / height - 1], 1)
        grid = F.pixel_shuffle(place, SCALE)
        grid = grid.view(batch, 2, self.groups, *grid.shape[2:]).permute(0, 2, 3, 4, 1).flatten(0, 1)
        groups = feat2sample.reshape(batch * self.groups, -1, *feat2sample.shape[2:])
        sampled = F.grid_sample(groups, grid.to(groups.dtype), padding_mode="border", align_corners=False)
        return sampled.reshape(batch, -1, *sampled.shape[2:])
