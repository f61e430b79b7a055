"""The VC-Decoder: a super-resolution network of dense residual blocks whose features are modulated by depth.

The trunk is that of ESRGAN; before every block's first and last convolution, and at its ends, a spatial feature
transform scales and shifts the features by maps computed from the depth (4K-NeRF, section 3.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COND_CHANNELS = 32  # of the condition that every transform sees
SCALES = (1, 2, 4)


class SFTNet(nn.Module):
    """Colours and depth of a small rendering to the colours of a large one.

    Args:
        n_in_colors: channels of the input. With more than 3 of them there are two further convolutions: ``conv_prefea``
            for a feature map beside the input, and ``conv_fea``, which published files hold and nothing uses.
        scale: 1, 2 or 4.
        num_feat: channels of the trunk.
        num_block: residual-in-residual blocks.
        num_grow_ch: channels that each convolution of a dense block adds.
        num_cond: channels of the condition, 1 for depth.
        dswise: the first convolution sees single pixels.

    Raises:
        ValueError: ``scale`` is another number.
    """

    def __init__(
        self,
        n_in_colors: int = 3,
        scale: int = 4,
        num_feat: int = 64,
        num_block: int = 5,
        num_grow_ch: int = 32,
        num_cond: int = 1,
        dswise: bool = False,
    ):
        super().__init__()
        if scale not in SCALES:
            raise ValueError(f"the decoder enlarges 1, 2 or 4 times, not {scale}")
        self.n_in_colors, self.scale, self.num_feat = n_in_colors, scale, num_feat
        self.num_block, self.num_grow_ch, self.num_cond, self.dswise = num_block, num_grow_ch, num_cond, dswise
        self.conv_first = (_conv1 if dswise else _conv3)(n_in_colors, num_feat)
        if n_in_colors > 3:
            self.conv_fea = _conv3(n_in_colors, num_feat)
            self.conv_prefea = _conv3(2 * num_feat, num_feat)
        self.body = nn.ModuleList(ResidualDenseGroup(num_feat, num_grow_ch) for _ in range(num_block))
        self.conv_body = _conv3(num_feat, num_feat)
        if scale > 1:
            self.conv_up1 = _conv3(num_feat, num_feat)
        if scale == 4:
            self.conv_up2 = _conv3(num_feat, num_feat)
        self.conv_hr = _conv3(num_feat, num_feat)
        self.conv_last = _conv3(num_feat, 3)
        self.sftbody = SFTLayer(num_feat)
        self.CondNet = nn.Sequential(
            _conv3(num_cond, 64), _activation(), _conv1(64, 64), _activation(), _conv1(64, 64), _activation(),
            _conv1(64, COND_CHANNELS),
        )  # fmt: skip

    def settings(self) -> dict[str, int | bool]:
        """The arguments that make a network like this one."""
        names = ("n_in_colors", "scale", "num_feat", "num_block", "num_grow_ch", "num_cond", "dswise")
        return {name: getattr(self, name) for name in names}

    def forward(self, x: Tensor, cond: Tensor, fea: Tensor | None = None) -> Tensor:
        """Enlarge a rendering.

        Args:
            x: (N, n_in_colors, h, w) colours, not clamped.
            cond: (N, num_cond, h, w) depth in the measure of the encoder.
            fea: (N, num_feat, h, w) further features, for a network that has ``n_in_colors`` > 3.

        Returns:
            (N, 3, scale * h, scale * w), not clamped.
        """
        return self.enlarge(self.trunk(x, cond, fea))

    def trunk(self, x: Tensor, cond: Tensor, fea: Tensor | None = None) -> Tensor:
        """The features (N, num_feat, h, w) that are enlarged: all that is computed at the size of the input."""
        cond = self.CondNet(cond)
        first = self.conv_first(x)
        if fea is not None:
            first = self.conv_prefea(torch.cat([first, fea], 1))
        body = first
        for group in self.body:
            body = group(body, cond)
        return self.conv_body(self.sftbody(body, cond)) + first

    def enlarge(self, body: Tensor) -> Tensor:
        """Features (N, num_feat, h, w) to colours (N, 3, scale * h, scale * w)."""
        if self.scale > 1:
            body = _lrelu(self.conv_up1(_twice(body)))
        if self.scale == 4:
            body = _lrelu(self.conv_up2(_twice(body)))
        return self.conv_last(_lrelu(self.conv_hr(body)))


class SFTLayer(nn.Module):
    """Spatial feature transform: ``x * (1 + scale) + shift``, both from the condition (N, cond_channels, h, w).

    Args:
        channels: of the features.
        cond_channels: of the condition.
    """

    def __init__(self, channels: int, cond_channels: int = COND_CHANNELS):
        super().__init__()
        self.SFT_scale_conv0 = _conv1(cond_channels, cond_channels)
        self.SFT_scale_conv1 = _conv1(cond_channels, channels)
        self.SFT_shift_conv0 = _conv1(cond_channels, cond_channels)
        self.SFT_shift_conv1 = _conv1(cond_channels, channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Features (N, channels, h, w) to the same shape."""
        scale = self.SFT_scale_conv1(_lrelu(self.SFT_scale_conv0(cond)))
        shift = self.SFT_shift_conv1(_lrelu(self.SFT_shift_conv0(cond)))
        return x * (scale + 1) + shift


class ResidualDenseBlock(nn.Module):
    """Five convolutions of which each sees all earlier ones; the fifth sees the fourth through its transform only."""

    def __init__(self, num_feat: int, num_grow_ch: int):
        super().__init__()
        self.sft0 = SFTLayer(num_feat)
        for number in range(4):
            self.add_module(f"conv{number + 1}", _conv3(num_feat + number * num_grow_ch, num_grow_ch))
        self.sft1 = SFTLayer(num_grow_ch)
        self.conv5 = _conv3(num_feat + 4 * num_grow_ch, num_feat)
        for number in range(1, 6):
            _start_small(self.get_submodule(f"conv{number}"))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Features (N, num_feat, h, w) to the same shape."""
        seen = [self.sft0(x, cond)]
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen.append(_lrelu(convolution(torch.cat(seen, 1))))
        seen[-1] = self.sft1(seen[-1], cond)
        return self.conv5(torch.cat(seen, 1)) * 0.2 + x


class ResidualDenseGroup(nn.Module):
    """Three dense blocks and a transform, around which the features go straight on."""

    def __init__(self, num_feat: int, num_grow_ch: int):
        super().__init__()
        self.rdb1 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb2 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb3 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.sft0 = SFTLayer(num_feat)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Features (N, num_feat, h, w) to the same shape."""
        y = self.rdb3(self.rdb2(self.rdb1(x, cond), cond), cond)
        return self.sft0(y, cond) * 0.2 + x


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _conv1(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1)


def _activation() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.2, inplace=True)


def _lrelu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _start_small(convolution: nn.Conv2d) -> None:
    """A tenth of Kaiming's weights: a residual block starts close to the identity."""
    nn.init.kaiming_normal_(convolution.weight)
    convolution.weight.data *= 0.1
    nn.init.zeros_(convolution.bias)
