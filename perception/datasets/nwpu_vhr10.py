"""NWPU VHR-10 with instance masks: the split into training and test images that CATNet was published with."""

from __future__ import annotations

import random
from pathlib import Path

from perception.datasets.class_names import Difference
from perception.datasets.coco_file import category_ids, read_coco
from perception.engine.errors import UserError

CLASSES = (
    "airplane",
    "ship",
    "storage tank",
    "baseball diamond",
    "tennis court",
    "basketball court",
    "ground track field",
    "harbor",
    "bridge",
    "vehicle",
)
NUM_IMAGES, NUM_TRAIN = 650, 487
_SEED = 14394022


def split_ids() -> tuple[list[int], list[int]]:
    """Ids of the training images, in the order in which they were drawn, and of the test images, in rising order."""
    train = random.Random(_SEED).sample(range(NUM_IMAGES), NUM_TRAIN)
    return train, sorted(set(range(NUM_IMAGES)) - set(train))


def split_annotations(path: str | Path) -> tuple[dict, dict]:
    """Annotations of the training and of the test images, in COCO's format, with category ids 1 to 10 as ``CLASSES``.

    Args:
        path: the annotations of all images with objects (COCO's format). Names of classes may be written with
            underscores.

    Raises:
        UserError: it is missing or in another format, has other classes or objects of unknown ones, or its images are
            not numbered 0 to 649.
    """
    content = read_coco(path)
    ids = [image["id"] for image in content["images"]]
    if sorted(ids, key=str) != sorted(range(NUM_IMAGES), key=str):
        raise UserError(
            f"{path} has {len(ids)} images with other ids than 0 to {NUM_IMAGES - 1}: the published split goes by these"
        )
    for category in content["categories"]:
        category["name"] = str(category["name"]).replace("_", " ")
    difference = Difference.between(CLASSES, [category["name"] for category in content["categories"]])
    if difference:
        raise UserError(f"{path} has other classes than NWPU VHR-10: {difference.text()}")
    numbers = {old: new for new, old in enumerate(category_ids(content, CLASSES, path), start=1)}
    for annotation in content["annotations"]:
        if annotation.get("category_id") not in numbers:
            raise UserError(
                f"{path}: an object of image {annotation['image_id']} has the category id "
                f"{annotation.get('category_id')!r}, which the file does not list"
            )
        annotation["category_id"] = numbers[annotation["category_id"]]
    content["categories"] = [{"id": new, "name": name} for new, name in enumerate(CLASSES, start=1)]
    train, test = split_ids()
    return _part(content, train), _part(content, test)


def _part(content: dict, ids: list[int]) -> dict:
    images = {image["id"]: image for image in content["images"]}
    wanted = set(ids)
    return {
        **content,
        "images": [images[number] for number in ids],
        "annotations": [annotation for annotation in content["annotations"] if annotation["image_id"] in wanted],
    }
