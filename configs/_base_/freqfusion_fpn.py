"""The pyramid with FreqFusion that the released detectors have in place of mmdet's FPN, between five levels."""

from projects.freqfusion.neck import FreqFusionFPN

freqfusion_fpn = dict(
    type=FreqFusionFPN,
    in_channels=[256, 512, 1024, 2048],
    out_channels=256,
    num_outs=5,
    compress_ratio=8,
    feature_resample=True,
    feature_resample_group=4,
)
# The fifth level takes part in the top-down path, so images are padded to multiples of its stride.
pad_size_divisor = 64
