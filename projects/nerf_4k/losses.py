"""Losses on the enlarged picture: perceptual and style distance in VGG19's features, and the adversarial game."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import vgg

from perception.engine.errors import UserError

VGG_FILE = "vgg19-dcbb9e9d.pth"
"""torchvision's name of the weights."""
LAYERS = {"conv1_2": 2, "conv2_2": 7, "conv3_4": 16, "conv4_4": 25, "conv5_4": 34}
"""Place in torchvision's ``features`` of the convolutions whose outputs, before the ReLU, are compared."""
LAYER_WEIGHTS = {"conv1_2": 0.0, "conv2_2": 0.0, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}


class VggFeatures(nn.Module):
    """What VGG19's convolutions make of a picture, before their ReLU.

    The network stays as it is: it has no gradients of its own, and no training mode.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = vgg.make_layers(vgg.cfgs["E"])[: max(LAYERS.values()) + 1]
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)

    @classmethod
    def from_file(cls, path: Path) -> VggFeatures:
        """Features of ImageNet, from torchvision's weights of VGG19.

        Raises:
            UserError: the file cannot be read, or holds something else.
        """
        from perception.engine.checkpoint import load_checkpoint_file  # imports MMEngine

        weights, made = load_checkpoint_file(path), cls()
        own = made.state_dict()
        if not all(isinstance(weights.get(name), Tensor) and weights[name].shape == own[name].shape for name in own):
            raise UserError(f"{path} does not hold torchvision's VGG19 weights ({VGG_FILE})")
        made.load_state_dict({name: weights[name] for name in own})
        return made

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Pictures (N, 3, H, W) in [0, 1] to features (N, C, H', W') by the name of the convolution."""
        x = (x - self.mean) / self.std
        found, names = {}, {place: name for name, place in LAYERS.items()}
        for place, layer in enumerate(self.features):
            # torchvision's ReLU works in place, which would change features that were kept.
            x = F.relu(x) if isinstance(layer, nn.ReLU) else layer(x)
            if place in names:
                found[names[place]] = x
        return found


class PerceptualLosses(NamedTuple):
    """Both without the weights of the recipe."""

    perceptual: Tensor
    style: Tensor


def perceptual_losses(
    vgg: VggFeatures, prediction: Tensor, target: Tensor, layer_weights: Mapping[str, float] = LAYER_WEIGHTS
) -> PerceptualLosses:
    """Mean absolute difference of features, and of their Gram matrices, summed over layers with their weights.

    Args:
        vgg: whose features are compared.
        prediction, target: (N, 3, H, W) colours; the target gets no gradient.
        layer_weights: by convolution.
    """
    found = vgg(prediction)
    with torch.no_grad():
        wanted = vgg(target)
    used = [(weight, found[name], wanted[name]) for name, weight in layer_weights.items() if weight]
    zero = prediction.new_zeros(())
    return PerceptualLosses(
        perceptual=sum((weight * F.l1_loss(ours, theirs) for weight, ours, theirs in used), zero),
        style=sum((weight * F.l1_loss(gram(ours), gram(theirs)) for weight, ours, theirs in used), zero),
    )


def gram(features: Tensor) -> Tensor:
    """Products of channels, averaged over a picture: (N, C, H, W) to (N, C, C), divided by ``C * H * W``."""
    flat = features.flatten(2)  # (N, C, H * W)
    return flat @ flat.transpose(1, 2) / features[0].numel()


def generator_loss(logits: Tensor) -> Tensor:
    """How far a discriminator is from taking pictures with these logits for real."""
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


def discriminator_loss(logits: Tensor, *, real: bool) -> Tensor:
    """How far a discriminator with these logits is from the truth about them."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
