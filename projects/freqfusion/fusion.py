"""FreqFusion: sharpens a shallow map and upsamples a deep one, before they are added or joined (paper section 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perception.ops.carafe import carafe

from .sampler import LocalSimGuidedSampler

PADDINGS = ("zero", "reflect")
SIZE_RULES = ("strict", "pad")


def hamming_window(size: int) -> Tensor:
    """Outer product (size, size) of a symmetric Hamming window."""
    window = torch.hamming_window(size, periodic=False, dtype=torch.float64)
    return torch.outer(window, window).float()


def normalize_kernels(logits: Tensor, kernel_size: int, window: Tensor) -> Tensor:
    """Logits (B, G k^2, H, W) of kernels to weights of the same shape that sum to 1 in every window of k x k.

    Args:
        logits: groups outermost, then taps row by row.
        kernel_size: k.
        window: (1, 1, k, k) or a single number that the softmax is multiplied with.
    """
    batch, channels, height, width = logits.shape
    kernels = logits.view(batch, channels // kernel_size**2, kernel_size**2, height, width).softmax(2)
    if window.numel() > 1:
        kernels = kernels * window.to(kernels.dtype).view(1, 1, -1, 1, 1)
        kernels = kernels / kernels.sum(2, keepdim=True)
    return kernels.view(batch, channels, height, width)


class FreqFusion(nn.Module):
    """Prepares a shallow and a deep map for fusion.

    Args:
        hr_channels: of the shallow map.
        lr_channels: of the deep one.
        compressed_channels: c, of both where kernels and offsets are predicted.
        lowpass_kernel: side of the kernels that upsample the deep map, odd.
        highpass_kernel: side of those that sharpen the shallow one, odd.
        up_group: groups of channels with kernels of their own.
        encoder_kernel: of the convolutions that predict kernels, odd.
        encoder_dilation: of the same.
        feature_resample: also resample the deep map at offsets.
        feature_resample_group: groups of channels with offsets of their own.
        feature_resample_norm: normalise the guides of the offsets.
        comp_feat_upsample: sharpen and upsample the compressed maps by first kernels, before the final ones.
        use_high_pass: sharpen the shallow map.
        hr_residual: add what the high pass finds to the shallow map, instead of returning it alone.
        semi_conv: predict from both maps at their own sizes. Otherwise the deep map is resized first, which works for
            any ratio of sizes.
        hamming_window: smooth the kernels by a Hamming window (on in the necks of mmdet, off for SegNeXt and
            Mask2Former).
        align_corners: of the resizing without ``semi_conv``.
        upsample_mode: likewise.
        direction_feat: what the offsets are predicted from, see :class:`LocalSimGuidedSampler`.
        padding: outside of the map are zeros (the published weights), or it is reflected (the authors' fallback without
            mmcv, for one group).
        sizes: "strict" demands a shallow map exactly twice as large; "pad" repeats the borders where it is one pixel
            short, and crops the results.
        checkpointing: compute again in the backward pass instead of keeping what lies between inputs and results.

    Raises:
        ValueError: settings that exclude each other.
    """

    def __init__(
        self,
        hr_channels: int,
        lr_channels: int,
        compressed_channels: int = 64,
        lowpass_kernel: int = 5,
        highpass_kernel: int = 3,
        up_group: int = 1,
        encoder_kernel: int = 3,
        encoder_dilation: int = 1,
        feature_resample: bool = False,
        feature_resample_group: int = 4,
        feature_resample_norm: bool = True,
        comp_feat_upsample: bool = True,
        use_high_pass: bool = True,
        hr_residual: bool = True,
        semi_conv: bool = True,
        hamming_window: bool = True,
        align_corners: bool = False,
        upsample_mode: str = "nearest",
        direction_feat: str = "sim_concat",
        padding: str = "zero",
        sizes: str = "strict",
        checkpointing: bool = False,
    ):
        super().__init__()
        if not use_high_pass and comp_feat_upsample and semi_conv:
            raise ValueError("use_high_pass=False needs comp_feat_upsample=False or semi_conv=False")
        if padding not in PADDINGS or (padding == "reflect" and up_group != 1):
            raise ValueError(f"padding must be 'zero', or 'reflect' with one group; got {padding!r} with {up_group}")
        if sizes not in SIZE_RULES:
            raise ValueError(f"sizes must be one of {', '.join(SIZE_RULES)}, got {sizes!r}")
        if lowpass_kernel % 2 == 0 or highpass_kernel % 2 == 0:
            raise ValueError(f"kernels must have odd sides, got {lowpass_kernel} and {highpass_kernel}")
        self.lowpass_kernel, self.highpass_kernel, self.up_group = lowpass_kernel, highpass_kernel, up_group
        self.comp_feat_upsample, self.use_high_pass, self.hr_residual = comp_feat_upsample, use_high_pass, hr_residual
        self.semi_conv, self.align_corners, self.upsample_mode = semi_conv, align_corners, upsample_mode
        self.padding, self.sizes, self.checkpointing = padding, sizes, checkpointing

        def encoder(kernel: int) -> nn.Conv2d:
            reach = (encoder_kernel - 1) * encoder_dilation // 2
            out_channels = kernel**2 * up_group
            return nn.Conv2d(
                compressed_channels, out_channels, encoder_kernel, padding=reach, dilation=encoder_dilation
            )

        self.hr_channel_compressor = nn.Conv2d(hr_channels, compressed_channels, 1)
        self.lr_channel_compressor = nn.Conv2d(lr_channels, compressed_channels, 1)
        self.content_encoder = encoder(lowpass_kernel)
        if use_high_pass:
            self.content_encoder2 = encoder(highpass_kernel)
        if feature_resample:
            self.dysampler = LocalSimGuidedSampler(
                compressed_channels,
                groups=feature_resample_group,
                kernel_size=encoder_kernel,
                norm=feature_resample_norm,
                direction_feat=direction_feat,
            )
        self.feature_resample = feature_resample
        for name, kernel in (("lowpass", lowpass_kernel), ("highpass", highpass_kernel)):
            window = _window(kernel) if hamming_window else torch.ones(1)
            self.register_buffer(f"hamming_{name}", window)
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier for every convolution, those of the sampler included, but small for the encoders of kernels."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        encoders = [self.content_encoder, self.content_encoder2] if self.use_high_pass else [self.content_encoder]
        for module in encoders:
            nn.init.normal_(module.weight, std=0.001)

    def forward(
        self, hr_feat: Tensor, lr_feat: Tensor, use_checkpoint: bool | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Low-pass kernels, sharpened shallow map and upsampled deep map.

        Half-precision maps are computed with in float32 and returned as they came.

        Args:
            hr_feat: (B, C_h, 2h, 2w).
            lr_feat: (B, C_l, h, w).
            use_checkpoint: overrides ``checkpointing`` for this call.

        Returns:
            (B, G k^2, 2h, 2w), (B, C_h, 2h, 2w) and (B, C_l, 2h, 2w); the sum of the last two, or whatever else is
            wanted of them, is left to the caller.

        Raises:
            ValueError: the sizes do not fit.
        """
        height, width = hr_feat.shape[2:]
        hr, lr = self._fitted(hr_feat, lr_feat)
        use_checkpoint = self.checkpointing if use_checkpoint is None else use_checkpoint
        if use_checkpoint and torch.is_grad_enabled():
            results = checkpoint(self._fuse, hr, lr, use_reentrant=False)
        else:
            results = self._fuse(hr, lr)
        kernels, hr, lr = (x[..., :height, :width] for x in results)
        return kernels, hr.to(hr_feat.dtype), lr.to(lr_feat.dtype)

    def _fitted(self, hr: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of the sizes that the kernels need."""
        height, width = (2 * size for size in lr.shape[2:])
        if not self.semi_conv or hr.shape[2:] == (height, width):
            return hr, lr
        missing = [width - hr.shape[3], height - hr.shape[2]]
        if self.sizes == "pad" and all(0 <= size <= 1 for size in missing):
            return F.pad(hr, [0, missing[0], 0, missing[1]], mode="replicate"), lr
        raise ValueError(
            f"FreqFusion needs a shallow map exactly twice as large as the deep one, got {tuple(hr.shape[2:])} and "
            f"{tuple(lr.shape[2:])}: pad images to a multiple of the largest stride (64 for five levels), or use "
            "sizes='pad' or semi_conv=False"
        )

    def _fuse(self, hr_feat: Tensor, lr_feat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(hr_feat.device.type, enabled=False):
            hr, lr = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (hr_feat, lr_feat))
            return self._fuse_single(hr, lr)

    def _fuse_single(self, hr: Tensor, lr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low_side, high_side = self.lowpass_kernel, self.highpass_kernel
        compressed_hr, compressed_lr = self.hr_channel_compressor(hr), self.lr_channel_compressor(lr)
        high = None
        if not self.semi_conv:
            joined = self._resize(compressed_lr, hr, "nearest") + compressed_hr
            low = self.content_encoder(joined)
            if self.use_high_pass:
                high = self.content_encoder2(joined)
        elif self.comp_feat_upsample:
            high = self.content_encoder2(compressed_hr)
            smooth = self._reassemble(compressed_hr, self._high_kernels(high), high_side, 1)
            compressed_hr = 2 * compressed_hr - smooth
            low = self.content_encoder(compressed_hr)
            first = self._low_kernels(low)
            low = low + self._reassemble(self.content_encoder(compressed_lr), first, low_side, 2)
            final = self._low_kernels(low)
            high = high + self._reassemble(self.content_encoder2(compressed_lr), final, low_side, 2)
        else:
            low = self.content_encoder(compressed_hr)
            low = low + self._resize(self.content_encoder(compressed_lr), low, "nearest")
            if self.use_high_pass:
                high = self.content_encoder2(compressed_hr)
                high = high + self._resize(self.content_encoder2(compressed_lr), high, "nearest")

        kernels = self._low_kernels(low)
        if self.semi_conv:
            upsampled = self._reassemble(lr, kernels, low_side, 2)
        else:
            upsampled = self._reassemble(self._resize(lr, hr, self.upsample_mode), kernels, low_side, 1)
        if high is not None:
            detail = hr - self._reassemble(hr, self._high_kernels(high), high_side, 1)
            hr = hr + detail if self.hr_residual else detail
        if self.feature_resample:
            upsampled = self.dysampler(hr_x=compressed_hr, lr_x=compressed_lr, feat2sample=upsampled)
        return kernels, hr, upsampled

    def _low_kernels(self, logits: Tensor) -> Tensor:
        return normalize_kernels(logits, self.lowpass_kernel, self.hamming_lowpass)

    def _high_kernels(self, logits: Tensor) -> Tensor:
        return normalize_kernels(logits, self.highpass_kernel, self.hamming_highpass)

    def _reassemble(self, x: Tensor, kernels: Tensor, size: int, factor: int) -> Tensor:
        groups = kernels.shape[1] // size**2
        if self.padding == "zero":
            return carafe(x, kernels, size, groups, factor)
        # With the map reflected, and the kernels of the added border left out again.
        reach = size // 2
        reflected = F.pad(x, [reach] * 4, mode="reflect")
        border = [reach * factor] * 4
        result = carafe(reflected, F.pad(kernels, border), size, groups, factor)
        return result[..., border[0] : -border[0] or None, border[0] : -border[0] or None]

    def _resize(self, x: Tensor, like: Tensor, mode: str) -> Tensor:
        corners = None if mode == "nearest" else self.align_corners
        return F.interpolate(x, like.shape[2:], mode=mode, align_corners=corners)


def _window(size: int) -> Tensor:
    return hamming_window(size).view(1, 1, size, size)
