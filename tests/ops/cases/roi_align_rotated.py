import torch

from perception.ops.roi_align_rotated import roi_align_rotated
from tests.ops.case import Case, boxes


def roi_align_rotated_case(sizes, dtype):
    batch, channels = sizes.number(1, 2), sizes.number(1, 19)
    height, width = sizes.number(1, 15), sizes.number(1, 13)
    count = sizes.number(0, 12)
    rois = torch.cat([sizes.integers(batch, count, 1).double(), boxes(sizes, count, torch.float64)], 1)
    rois[:, 1:5] *= 0.5
    if count > 1:
        rois[1, 1:3] = -40.0  # wholly outside
    options = dict(
        spatial_scale=0.5,
        sampling_ratio=sizes.option(0, 2),
        aligned=sizes.option(True, False),
        clockwise=sizes.option(False, True),
    )
    bins = (sizes.number(1, 4), sizes.number(1, 5))
    features = sizes.uniform(batch, channels, height, width, low=-1, dtype=dtype)
    return Case(lambda f, r: roi_align_rotated(f, r, bins, **options), (features, rois.to(dtype)), 1)


CASES = {"roi_align_rotated": roi_align_rotated_case}
