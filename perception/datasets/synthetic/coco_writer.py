"""Writes pictures with instance masks as an ordinary COCO data set.

The layout under one folder::

    images/train/000000.jpg ...
    annotations/instances_train.json      (file_name is relative to images/train/)

Segmentations are run-length encoded, which keeps holes and single pixels exact; area and box are those of the mask.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from pycocotools import mask as rle

from perception.datasets.synthetic.jpeg import write_jpeg


def image_folder(split: str) -> str:
    """Where the pictures of a split are, relative to the data set's folder."""
    return f"images/{split}"


def annotation_file(split: str) -> str:
    """Where the annotations of a split are, relative to the data set's folder."""
    return f"annotations/instances_{split}.json"


class CocoWriter:
    """Collects one split of a data set.

    Args:
        root: the data set's folder.
        split: for instance `train`.
        classes: category names; label k becomes category id k + 1.
        description, supercategory: texts for the annotation file.
    """

    def __init__(self, root: Path, split: str, classes: Sequence[str], *, description: str, supercategory: str):
        self._image_folder = root / image_folder(split)
        self._annotation_file = root / annotation_file(split)
        self._info = {"description": description, "version": "1.0", "contributor": "perception"}
        self._categories = [
            {"id": k + 1, "name": name, "supercategory": supercategory} for k, name in enumerate(classes)
        ]
        self._images: list[dict] = []
        self._annotations: list[dict] = []
        self._image_folder.mkdir(parents=True)

    def add(
        self,
        image: np.ndarray,
        masks: Iterable[np.ndarray],
        labels: Sequence[int],
        crowds: Iterable[bool] | None = None,
    ) -> None:
        """Write one picture and remember its instances.

        Args:
            image: `uint8` `[H, W, 3]` RGB.
            masks: `bool` `[H, W]` visible pixels of each of N instances; one without any is left out.
            labels: N class indices.
            crowds: N flags of instances that training and evaluation leave out; None: there are none.
        """
        height, width = image.shape[:2]
        index = len(self._images)
        name = f"{index:06d}.jpg"
        write_jpeg(self._image_folder / name, image)
        self._images.append({"id": index + 1, "file_name": name, "height": height, "width": width, "license": 1})
        crowds = [False] * len(labels) if crowds is None else crowds
        for mask, label, crowd in zip(masks, labels, crowds, strict=True):
            if not mask.any():
                continue
            encoded_mask = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": index + 1,
                    "category_id": int(label) + 1,
                    "bbox": rle.toBbox(encoded_mask).tolist(),
                    "area": int(rle.area(encoded_mask)),
                    "segmentation": {"size": [height, width], "counts": encoded_mask["counts"].decode("ascii")},
                    "iscrowd": int(crowd),
                }
            )

    def finish(self) -> dict[str, int]:
        """Write the annotation file and return the numbers of images and instances."""
        self._annotation_file.parent.mkdir(exist_ok=True)
        content = {
            "info": self._info,
            "licenses": [{"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}],
            "images": self._images,
            "annotations": self._annotations,
            "categories": self._categories,
        }
        self._annotation_file.write_text(json.dumps(content))
        return {"images": len(self._images), "instances": len(self._annotations)}
