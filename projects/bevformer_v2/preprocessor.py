"""Images of rigs as the network takes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from perception.engine.errors import UserError


@MODELS.register_module()
class RigPreprocessor(BaseDataPreprocessor):
    """Normalises and pads the images of all cameras and frames.

    Args:
        mean, std: of the channels in the order in which the network takes them.
        bgr: whether that order is blue, green, red; images come as red, green, blue.
        pad_divisor: heights and widths become multiples of it.
        pad_flipped_left: images that were mirrored are padded on their left, so that after their features are mirrored
            back the padding is on the right, as the cameras' matrices have it. The released code pads on the right:
            features of widths that are no multiple of the divisor are then displaced by the padding.
        non_blocking: as in MMEngine.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float] = (103.53, 116.28, 123.675),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        bgr: bool = True,
        pad_divisor: int = 32,
        pad_flipped_left: bool = True,
        non_blocking: bool = False,
    ):
        super().__init__(non_blocking=non_blocking)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        self.bgr, self.pad_divisor, self.pad_flipped_left = bgr, pad_divisor, pad_flipped_left

    def forward(self, data: dict, training: bool = False) -> dict:
        """``inputs["img"]``, a list of B uint8 (frames, cameras, 3, H, W), become float32 of one height and width.

        Samples learn ``pad_shape``, their own height and width with padding. A sample's ``grid_mask``, of that size,
        multiplies its current frame: earlier ones are looked at as in evaluation.

        Raises:
            UserError: samples without images, or with another number of cameras than the others.
        """
        data = self.cast_data(data)
        samples = data["data_samples"]
        images = [
            self._masked(self.normalise(frames), sample) for frames, sample in zip(data["inputs"]["img"], samples)
        ]
        if len({frames.shape[1] for frames in images}) != 1:
            raise UserError(
                f"the samples of a batch have {', '.join(str(frames.shape[1]) for frames in images)} cameras: "
                "a batch takes rigs of the same number"
            )
        for sample, frames in zip(samples, images):
            sample.set_metainfo({"pad_shape": tuple(self._padded(side) for side in frames.shape[-2:])})
        height, width = (max(sample.pad_shape[axis] for sample in samples) for axis in range(2))
        data["inputs"] = {"img": [self._pad(x, height, width, s) for x, s in zip(images, samples)]}
        return data

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (..., 3, H, W) RGB to float32 of the network's order, mean and deviation."""
        ordered = images.flip(-3) if self.bgr else images
        return (ordered.float() - self.mean) / self.std

    def _padded(self, side: int) -> int:
        return -(-side // self.pad_divisor) * self.pad_divisor

    def _masked(self, frames: Tensor, sample) -> Tensor:
        mask = sample.metainfo.get("grid_mask")
        if mask is None:
            return frames
        height, width = frames.shape[-2:]  # beyond which there is nothing to hide
        frames[list(sample.offsets).index(0)] *= torch.as_tensor(mask, device=frames.device)[:height, :width]
        return frames

    def _pad(self, frames: Tensor, height: int, width: int, sample) -> Tensor:
        down, across = height - frames.shape[-2], width - frames.shape[-1]
        left = across if self.pad_flipped_left and sample.metainfo.get("flip", False) else 0
        return F.pad(frames, (left, across - left, 0, down))
