"""The whole head and its losses, forwards and backwards, against a rendering of the published formulas by plain torch.

The rendering knows the authors' names alone and nothing of this code. Its weights are of a formula, so that no file is
needed; what it gave is written below.
"""

import pytest
import torch
from torch.testing import assert_close

from projects.bevformer_v2.converter import to_authors, to_perception
from projects.bevformer_v2.head import BEVFormerHead
from projects.bevformer_v2.losses import BEVCriterion, Target3D
from projects.bevformer_v2.points import Rig
from tests.projects.bevformer_v2.tiny import RANGE, rig
from tests.waves import filled, wave

# Three cameras, two frames of which one is known, two groups of queries, a turned and smaller ground.
TRANSFORMER = dict(
    num_heads=2,
    num_cams=3,
    num_levels=2,
    num_pillar_points=2,
    num_spatial_points=4,
    feedforward_channels=24,
    num_encoder_layers=1,
    num_decoder_layers=2,
    frames=(-1, 0),
    fusion_channels=None,
    num_fusion_blocks=1,
    dropout=0.0,
)
BOXES = [
    [10.0, -8, -1, 1.9, 4.5, 1.6, 0.4, 2, -1],
    [-20, 14, 0, 2.5, 9, 3, -2, 0, 0],
    [3, 30, -2, 0.7, 0.7, 1.7, 1, 0, 0.5],
]


def test_values_and_gradients():
    head = BEVFormerHead(3, 16, (5, 6), RANGE, 5, 2, transformer=TRANSFORMER)
    authors = to_authors(head.state_dict(prefix="pts_bbox_head.")).checkpoint["state_dict"]
    weights = filled({key.removeprefix("pts_bbox_head."): value for key, value in authors.items()})
    ours = to_perception({f"pts_bbox_head.{key}": value for key, value in weights.items()}).checkpoint["state_dict"]
    head.load_state_dict({key.removeprefix("pts_bbox_head."): value for key, value in ours.items()})
    feats = [wave((1, 3, 16, *size), phase).requires_grad_() for size, phase in (((8, 12), 1.0), ((4, 6), 2.0))]
    cameras = Rig(rig().lidar2img[:, ::2], rig().image_size)
    warp = torch.tensor([[[0.96, 0.18, 0], [-0.18, 0.96, 0], [0, 0, 1]]])

    output = head(feats, cameras, [wave((1, 30, 16), 3.0), None], bev_warp=warp)
    target = Target3D(torch.tensor([0, 2, 1]), torch.tensor(BOXES))
    losses = BEVCriterion()(output, [target], head.code_weights)
    sum(losses.values()).backward()

    def near(found, expected):
        assert_close(found, torch.tensor(expected), atol=2e-5, rtol=1e-5)

    near(output.bev[0, ::7, 3], [-0.497146, -1.261811, -0.087708, -1.972453, -1.77171])
    near(output.logits[:, 0, ::4, 1].flatten(), [-0.026572, -0.032792, -0.110928, -0.002035, -0.002223, -0.0739])
    near(output.codes[1, 0, 6, :5], [-17.193413, -15.443535, -0.296456, -0.290732, -1.750993])
    near(output.codes[1, 0, 6, 5:], [-0.20687, -0.140008, -0.067505, 0.000687, 0.054635])
    expected = {"d0.loss_cls": 1.060765, "d0.loss_bbox": 23.783146, "loss_cls": 1.109139, "loss_bbox": 28.052999}
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-5)

    near(feats[1].grad[0, 1, 2, 1], [7.7e-05, 0.001152, -0.000204, -0.001127, -0.000374, 0.002147])
    encoder, fusion = head.transformer.encoder.layers[0], head.transformer.fusion
    sums = {
        feats[0]: 1.0465916,
        head.query_embedding.weight: 68.328384,
        head.bev_embedding.weight: 153.12871,
        encoder.cross_attn.deformable_attention.sampling_offsets.weight: 4.1848364,
        encoder.self_attn.sampling_offsets.weight: 11.371822,
        fusion.layers[0].conv1.weight: 712.36072,
        head.transformer.reference_points.weight: 34.840172,
    }
    for tensor, total in sums.items():
        assert tensor.grad.abs().sum().item() == pytest.approx(total, rel=1e-4)
