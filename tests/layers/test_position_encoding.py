"""Sine encodings of positions."""

import math
from pathlib import Path

import torch
from mmdet.models.layers import SinePositionalEncoding
from torch.testing import assert_close

from perception.layers.position_encoding import sine_features, sine_position_encoding

RECORDED = Path(__file__).parents[1] / "data" / "reference" / "rank_detr" / "layers.pt"


def test_recorded_encoding_of_a_padded_image():
    case = torch.load(RECORDED, weights_only=True)["outputs"]["sine_pos"]
    assert case["mask"].any()
    assert_close(sine_position_encoding(case["mask"], case["num_pos_feats"]), case["output"], atol=1e-5, rtol=0)


def test_encoding_equals_that_of_mmdet():
    mask = torch.zeros(2, 5, 7, dtype=torch.bool)
    mask[0, 3:], mask[1, :, 4:] = True, True
    theirs = SinePositionalEncoding(num_feats=16, temperature=20, normalize=True, offset=-0.5)
    assert_close(sine_position_encoding(mask, 16, temperature=20.0), theirs(mask), atol=1e-5, rtol=1e-5)


def test_features_by_hand():
    quarter = sine_features(torch.tensor([[math.pi / 2]]), num_feats=4, temperature=100.0)
    slow = math.pi / 20  # a tenth of the first frequency: 100 ** (2 / 4)
    assert_close(quarter, torch.tensor([[[1.0, 0.0, math.sin(slow), math.cos(slow)]]]), atol=1e-6, rtol=0)
