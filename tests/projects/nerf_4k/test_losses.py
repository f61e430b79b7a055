"""Perceptual, style and adversarial losses, against torchvision's own network and their formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import vgg

from perception.engine.errors import UserError
from projects.nerf_4k.losses import (
    LAYER_WEIGHTS,
    LAYERS,
    VGG_FILE,
    VggFeatures,
    discriminator_loss,
    generator_loss,
    gram,
    perceptual_losses,
)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Of torchvision's convolutions, with a range that keeps signals alive."""
    torch.manual_seed(1)
    network = vgg.make_layers(vgg.cfgs["E"])
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return {f"features.{name}": value for name, value in network.state_dict().items()}


def convolution_outputs(weights, x):
    """What torchvision's network makes of a picture, caught at its convolutions before anything changes it in place."""
    network = vgg.make_layers(vgg.cfgs["E"])
    network.load_state_dict({name.removeprefix("features."): value for name, value in weights.items()})
    caught = []
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda module, inputs, output: caught.append(output.clone()))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    network((x - mean) / std)
    return dict(zip(LAYERS, (caught[place] for place in (1, 3, 7, 11, 15))))


def test_features_and_losses(weights, tmp_path):
    torch.save(weights | {"classifier.0.weight": torch.zeros(2)}, tmp_path / VGG_FILE)
    features = VggFeatures.from_file(tmp_path / VGG_FILE)
    x, target = torch.rand(1, 3, 40, 48).requires_grad_(), torch.rand(1, 3, 40, 48)
    expected, wanted = convolution_outputs(weights, x), convolution_outputs(weights, target)
    assert {name: value.shape for name, value in features(x).items()} == {n: v.shape for n, v in expected.items()}
    for name, value in features(x).items():
        torch.testing.assert_close(value, expected[name])
        assert (value < 0).any()
    losses = perceptual_losses(features, x, target)
    by_hand, style = 0.0, 0.0
    for name in ("conv3_4", "conv4_4", "conv5_4"):
        _, c, h, w = expected[name].shape
        by_hand += (expected[name] - wanted[name]).abs().mean()
        pair = [torch.einsum("bcij,bdij->bcd", value, value) / (c * h * w) for value in (expected[name], wanted[name])]
        style += (pair[0] - pair[1]).abs().mean()
    torch.testing.assert_close(losses.perceptual, by_hand)
    torch.testing.assert_close(losses.style, style, rtol=1e-4, atol=1e-6)
    own, other = (torch.autograd.grad(a + b, x, retain_graph=True)[0] for a, b in (losses, (by_hand, style)))
    torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-6)
    first = perceptual_losses(features, x, target, {"conv1_2": 0.5})
    torch.testing.assert_close(first.perceptual, 0.5 * (expected["conv1_2"] - wanted["conv1_2"]).abs().mean())
    assert all(parameter.grad is None for parameter in features.parameters())


def test_layers_and_their_weights():
    assert list(LAYER_WEIGHTS.values()) == [0, 0, 1, 1, 1]
    assert list(LAYERS) == list(LAYER_WEIGHTS)
    torch.testing.assert_close(gram(torch.ones(2, 3, 4, 5)), torch.full((2, 3, 3), 1 / 3))


def test_other_files_are_refused(weights, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        VggFeatures.from_file(tmp_path / "none.pth")
    wrong = dict(weights)
    wrong["features.0.weight"] = torch.zeros(8, 3, 3, 3)
    torch.save(wrong, tmp_path / "vgg16.pth")
    with pytest.raises(UserError, match="VGG19"):
        VggFeatures.from_file(tmp_path / "vgg16.pth")


def test_adversarial_losses():
    logits = torch.tensor([[0.3, -2.0], [1.5, 0.0]])
    torch.testing.assert_close(generator_loss(logits), F.softplus(-logits).mean())
    torch.testing.assert_close(discriminator_loss(logits, real=True), F.softplus(-logits).mean())
    torch.testing.assert_close(discriminator_loss(logits, real=False), F.softplus(logits).mean())
