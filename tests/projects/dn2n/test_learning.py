"""The model learns: a held-out view of two planes, from clean sources."""

import pytest
import torch

from perception.radiance.metrics import psnr
from projects.dn2n.perturbation import PerturbationSettings
from projects.dn2n.settings import TrainingSettings
from tests.projects.dn2n import overfit


@pytest.mark.slow
def test_a_held_out_view_is_learnt():
    scene = overfit.Planes()
    training = TrainingSettings(
        iters=100,
        source_sets=1,
        perturbation=PerturbationSettings(probability=0.0),
        style_probability=0.0,
        weight_self=0.0,
        weight_neighbour=0.0,
    )
    model = overfit.make_model(training)
    target = scene.target.movedim(0, -1)
    before = float(psnr(overfit.picture(model, scene), target))
    overfit.train(model, scene, 100)
    after = float(psnr(overfit.picture(model, scene), target))
    mean = float(psnr(scene.all.mean(0), scene.target))
    assert after > before + 5
    assert after > mean
    assert torch.isfinite(torch.tensor(after))
