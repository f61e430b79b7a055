"""Numbers recorded from a compiled mmcv 2.3.6 on the CPU hold through `mmcv.ops`."""

from pathlib import Path

import mmcv.ops
import pytest
import torch

from tests.ops.definitions import weighted_sum

FOLDER = Path(__file__).parents[1] / "data" / "reference" / "mmcv_ops"
CASES = {
    name: case
    for file in ("operators.pt", "deformable_convolutions.pt")
    for name, case in torch.load(FOLDER / file, weights_only=True)["cases"].items()
}
FUNCTIONS = {
    "arf": mmcv.ops.active_rotated_filter,
    "batched_nms": mmcv.ops.batched_nms,
    "box_iou_quadri": mmcv.ops.box_iou_quadri,
    "box_iou_rotated": mmcv.ops.box_iou_rotated,
    "dc": mmcv.ops.deform_conv2d,
    "mdc": mmcv.ops.modulated_deform_conv2d,
    "nms": mmcv.ops.nms,
    "nms_rotated": mmcv.ops.nms_rotated,
    "ra": mmcv.ops.roi_align,
    "rar": mmcv.ops.roi_align_rotated,
    "soft_nms": mmcv.ops.soft_nms,
}


def attend(value, spatial_shapes, sampling_locations, attention_weights):
    """The function that mmcv calls for CUDA tensors."""
    sizes = spatial_shapes.prod(1)
    starts = sizes.cumsum(0) - sizes
    function = mmcv.ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction
    return function.apply(value, spatial_shapes, starts, sampling_locations, attention_weights, 64)


@pytest.mark.parametrize("name", CASES)
def test_recorded_case(name):
    case = CASES[name]
    inputs = {k: v.clone().requires_grad_() if k in case["grads"] else v for k, v in case["inputs"].items()}
    if case["fn"] == "msda":
        results = attend(**inputs)
    elif case["grads"]:
        results = FUNCTIONS[case["fn"]](*inputs.values())  # autograd functions take no keywords
    else:
        results = FUNCTIONS[case["fn"]](**inputs)
    results = results if isinstance(results, tuple) else (results,)
    for result, expected in zip(results, case["outputs"], strict=True):
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
    if case["grads"]:
        sum(weighted_sum(result) for result in results).backward()
    for key, expected in case["grads"].items():
        torch.testing.assert_close(inputs[key].grad, expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-4)
