"""LPIPS from weights that lie on this machine."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import _LPIPS

from perception.engine.plain_pickle import load_tensors


class Lpips(nn.Module):
    """LPIPS v0.1 with AlexNet features.

    Args:
        path: torchvision's AlexNet weights. The weights of the linear layers come with torchmetrics.
    """

    def __init__(self, path: Path):
        super().__init__()
        # torchmetrics would download the backbone: it is built without weights and filled from the file.
        self.net = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
        weights = load_tensors(path)
        own = self.net.net.state_dict()
        for name in own:
            _, layer, kind = name.split(".")  # slice, layer of torchvision's `features`, weight or bias
            own[name] = weights[f"features.{layer}.{kind}"]
        self.net.net.load_state_dict(own)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Distance of images (1, 3, H, W) in [0, 1]."""
        return self.net(prediction, target, normalize=True).mean()
