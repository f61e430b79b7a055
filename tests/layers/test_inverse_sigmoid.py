"""The bounded logit."""

import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from perception.layers.inverse_sigmoid import inverse_sigmoid

RECORDED = Path(__file__).parents[1] / "data" / "reference" / "rank_detr" / "layers.pt"


def test_recorded_values():
    case = torch.load(RECORDED, weights_only=True)["outputs"]["inverse_sigmoid_eps1e-3"]
    assert_close(inverse_sigmoid(case["x"], 1e-3), case["y"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("eps", [1e-3, 1e-5])
def test_inverse_inside_and_bounded_outside(eps):
    logits = torch.linspace(-6, 6, 13, dtype=torch.float64)
    assert_close(inverse_sigmoid(logits.sigmoid(), eps)[abs(logits) < 6], logits[abs(logits) < 6])
    bound = -math.log(eps)
    ends = inverse_sigmoid(torch.tensor([-0.5, 0.0, 1.0, 2.0], dtype=torch.float64), eps)
    assert_close(ends, torch.tensor([-bound, -bound, bound, bound], dtype=torch.float64))
