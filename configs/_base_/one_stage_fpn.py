"""The pyramid of one-stage detectors: strides 8 to 128, the last two from the deepest map of the backbone."""

from mmdet.models.necks import FPN

one_stage_fpn = dict(
    type=FPN,
    in_channels=[256, 512, 1024, 2048],
    out_channels=256,
    start_level=1,
    add_extra_convs="on_input",
    num_outs=5,
)
