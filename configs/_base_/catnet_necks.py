"""The necks of CATNet's detectors: DenseFPN of five stages, then SCP; from C2 or, for one-stage detectors, from C3."""

from projects.catnet.neck import SCP, DenseFPN

catnet_neck = [
    dict(
        type=DenseFPN,
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        num_outs=5,
        stack_times=5,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
    ),
    dict(type=SCP, in_channels=256, num_levels=5),
]
catnet_one_stage_neck = [dict(catnet_neck[0], start_level=1), catnet_neck[1]]
