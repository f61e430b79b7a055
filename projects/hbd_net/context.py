"""What a patch sees around it: crops of reduced images, from the data set to the model's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmcv.transforms import BaseTransform, Compose
from mmdet.datasets.transforms import PackDetInputs, RandomFlip
from mmdet.models import DetDataPreprocessor
from mmdet.registry import MODELS, TRANSFORMS
from mmdet.structures import DetDataSample
from mmrotate.structures.bbox import RotatedBoxes
from torch import Tensor

from perception.geometry.pyramid import Context


@dataclass(frozen=True)
class ContextCrops:
    """The crops of one patch, as they are loaded.

    Attributes:
        images: of each crop, uint8 (3, H, W) BGR.
        contexts: what each crop is.
        samples: of each crop its objects, for training; None where there are none to learn from.
    """

    images: Sequence[Tensor]
    contexts: Sequence[Context]
    samples: Sequence[DetDataSample] | None = None


@dataclass(frozen=True)
class ContextBatch:
    """The R crops of all patches of a batch, as the model takes them.

    Attributes:
        inputs: (R, 3, H, W), normalised and padded to one size.
        samples: of each crop; None in testing.
        patches: of each crop, the number of its patch in the batch.
        inside: where the patch lies in the padded crop, as shares (left, top, right, bottom).
        factors: of each crop's reduction.
    """

    inputs: Tensor
    samples: list[DetDataSample] | None
    patches: list[int]
    inside: list[tuple[float, float, float, float]]
    factors: list[int]


@TRANSFORMS.register_module()
class LoadContext(BaseTransform):
    """Loads the crops that ``context`` lists: records like those of patches, with their ``place``.

    Args:
        transforms: what is done to the record of each crop: loading its image and its boxes.
    """

    def __init__(self, transforms: Sequence[dict]):
        self.load = Compose(transforms)

    def transform(self, results: dict) -> dict:
        """Replaces the records of ``context`` by what was loaded."""
        results["context"] = [self.load({**record}) for record in results.get("context", ())]
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.load})"


@TRANSFORMS.register_module()
class DropShortObjects(BaseTransform):
    """Removes objects whose both sides are short: a reduced image does not show them.

    Args:
        min_length: objects with a long side below this many pixels are removed; 15 in the released recipe.
    """

    def __init__(self, min_length: float = 15):
        self.min_length = min_length

    def transform(self, results: dict) -> dict:
        """Changes ``gt_bboxes`` (rotated boxes) and what belongs to them."""
        boxes = results["gt_bboxes"]
        if not isinstance(boxes, RotatedBoxes):
            raise TypeError(f"DropShortObjects needs rotated boxes, not {type(boxes).__name__}")
        kept = boxes.tensor[:, 2:4].amax(1) >= self.min_length
        for key in ("gt_bboxes", "gt_bboxes_labels", "gt_ignore_flags"):
            results[key] = results[key][kept if key == "gt_bboxes" else kept.numpy()]
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(min_length={self.min_length})"


@TRANSFORMS.register_module()
class RandomFlipWithContext(RandomFlip):
    """mmdet's flip, of a patch and its crops alike."""

    def transform(self, results: dict) -> dict:
        """Flips also each crop's ``img``, boxes and ``place``."""
        results = super().transform(results)
        if results["flip"]:
            direction = results["flip_direction"]
            for crop in results.get("context", ()):
                crop["flip_direction"] = direction
                self._flip(crop)
                crop["place"] = crop["place"].flipped(direction)
        return results


@TRANSFORMS.register_module()
class PackWithContext(PackDetInputs):
    """mmdet's packing; the crops of a patch come as ``context`` (:class:`ContextCrops`, None without any)."""

    def transform(self, results: dict) -> dict[str, Any]:
        """Packs the patch and each of its crops."""
        packed = super().transform(results)
        crops = results.get("context", ())
        packed["context"] = self._packed(crops) if crops else None
        return packed

    def _packed(self, crops: Sequence[dict]) -> ContextCrops:
        each = [super(PackWithContext, self).transform(crop) for crop in crops]
        places = [crop["place"] for crop in crops]
        return ContextCrops([one["inputs"] for one in each], places, [one["data_samples"] for one in each])


@MODELS.register_module()
class ContextPreprocessor(DetDataPreprocessor):
    """mmdet's preprocessor, which prepares the crops of a batch like its patches.

    Takes and returns one entry more, ``context``: a :class:`ContextCrops` or None for each patch; a
    :class:`ContextBatch`, or None if no patch has any.

    Raises:
        ValueError: with ``batch_augments``, which would change patches and not their crops.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.batch_augments is not None:
            raise ValueError("batch_augments would change patches and not what is around them: leave them out")

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalises, pads and stacks patches, and crops by themselves."""
        data = dict(data)
        context = data.pop("context", None)
        prepared = super().forward(data, training)
        prepared["context"] = self._batch(context, training) if context and any(context) else None
        return prepared

    def _batch(self, context: Sequence[ContextCrops | None], training: bool) -> ContextBatch:
        given = [(patch, crops) for patch, crops in enumerate(context) if crops is not None]
        images = [image for _, crops in given for image in crops.images]
        samples = None
        if training:
            samples = [sample for _, crops in given for sample in crops.samples or ()]
            if len(samples) != len(images):
                raise ValueError(f"training needs the objects of all {len(images)} crops, got {len(samples)}")
        prepared = super().forward(dict(inputs=images, data_samples=samples), training)
        height, width = prepared["inputs"].shape[-2:]
        patches, inside, factors = [], [], []
        for patch, crops in given:
            for image, place in zip(crops.images, crops.contexts, strict=True):
                # Padding is to the right and below.
                across, down = image.shape[-1] / width, image.shape[-2] / height
                left, top, right, bottom = place.inside
                patches.append(patch)
                inside.append((left * across, top * down, right * across, bottom * down))
                factors.append(place.factor)
        return ContextBatch(prepared["inputs"], prepared["data_samples"], patches, inside, factors)


def patches_with_context(batch: ContextBatch) -> dict[int, list[int]]:
    """The numbers of the crops of each patch that has some."""
    found: dict[int, list[int]] = {}
    for crop, patch in enumerate(batch.patches):
        found.setdefault(patch, []).append(crop)
    return found


def stacked(maps: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Pyramids of single patches as one of the batch."""
    return tuple(torch.cat(level) for level in zip(*maps))
