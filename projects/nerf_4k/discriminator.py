"""The discriminator: a U-Net with spectral normalisation that judges every pixel (Real-ESRGAN)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm


class UNetDiscriminatorSN(nn.Module):
    """A logit of being real for every pixel.

    The norms of the weights are estimated by one power iteration in each forward pass in training mode, whose vectors
    are part of the state dict (``weight_u``, ``weight_v`` beside ``weight_orig``).

    Args:
        num_in_ch: channels of the picture.
        num_feat: channels at full resolution.
        skip_connection: add the features on the way down to those on the way up.
    """

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64, skip_connection: bool = True):
        super().__init__()
        self.num_in_ch, self.num_feat, self.skip_connection = num_in_ch, num_feat, skip_connection
        self.conv0 = nn.Conv2d(num_in_ch, num_feat, 3, padding=1)
        self.conv1 = _normalised(num_feat, num_feat * 2, kernel=4, stride=2)
        self.conv2 = _normalised(num_feat * 2, num_feat * 4, kernel=4, stride=2)
        self.conv3 = _normalised(num_feat * 4, num_feat * 8, kernel=4, stride=2)
        self.conv4 = _normalised(num_feat * 8, num_feat * 4)
        self.conv5 = _normalised(num_feat * 4, num_feat * 2)
        self.conv6 = _normalised(num_feat * 2, num_feat)
        self.conv7 = _normalised(num_feat, num_feat)
        self.conv8 = _normalised(num_feat, num_feat)
        self.conv9 = nn.Conv2d(num_feat, 1, 3, padding=1)

    def settings(self) -> dict[str, int | bool]:
        """The arguments that make a network like this one."""
        return {name: getattr(self, name) for name in ("num_in_ch", "num_feat", "skip_connection")}

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, num_in_ch, H, W) to logits (N, 1, H', W'), the sides rounded down to multiples of 8."""
        x0 = _lrelu(self.conv0(_in_eights(x)))
        x1 = _lrelu(self.conv1(x0))
        x2 = _lrelu(self.conv2(x1))
        x = _lrelu(self.conv3(x2))
        for convolution, skipped in ((self.conv4, x2), (self.conv5, x1), (self.conv6, x0)):
            x = _lrelu(convolution(_twice(x)))
            if self.skip_connection:
                x = x + skipped
        return self.conv9(_lrelu(self.conv8(_lrelu(self.conv7(x)))))


def _normalised(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Module:
    # The older of torch's two forms, whose names are those of the published weights.
    return spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False))


def _in_eights(x: Tensor) -> Tensor:
    """Resize so that three halvings and doublings return to the same size."""
    height, width = (max(side // 8 * 8, 8) for side in x.shape[2:])
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=False)


def _lrelu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
