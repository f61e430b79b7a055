"""Annotations of Pascal VOC as those of COCO: boxes alone, objects that are difficult as crowds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from perception.datasets.class_names import Difference, listed
from perception.datasets.folders import names_below, unique_stems
from perception.datasets.images import IMAGE_SUFFIXES, UnreadableImageError, read_header
from perception.datasets.voc_xml import before_the_first, box_of, read_voc
from perception.engine.errors import UserError


def coco_of_voc(
    annotations: Path,
    images: Path,
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    base: int | None = None,
) -> tuple[dict, int]:
    """The content of an annotation file, and the number of the first pixel.

    Evaluation in COCO's format leaves out crowds, and with them what VOC calls difficult.

    Args:
        annotations: the folder of XML files.
        images: the folder of images; an image belongs to the XML file of its name.
        names: of the files without suffix; None: all.
        classes: names by category id, from 1 on; None: those of the files, sorted.
        base: number of the first pixel, 0 or 1; None: 0 if an object of any file begins at 0, else 1.

    Raises:
        UserError: a file or image is missing or damaged, or there are objects of other classes.
    """
    files = unique_stems(
        images, [name for name in names_below(images) if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
    )
    if names is None:
        names = [os.path.splitext(name)[0] for name in names_below(annotations) if name.endswith(".xml")]
    if not names:
        raise UserError(f"{annotations} holds no XML files")
    missing = [name for name in names if name not in files]
    if missing:
        raise UserError(f"{len(missing)} of {len(names)} images are missing in {images}: {listed(missing)}")
    found = {name: read_voc(annotations / f"{name}.xml") for name in names}
    objects = [item for image in found.values() for item in image.objects]
    known = sorted({item.name for item in objects})
    difference = Difference.between([], [name for name in known if classes is not None and name not in classes])
    if difference:
        raise UserError(f"the labels have other classes than {listed(classes)}: {difference.text()}")
    classes = list(classes or known)
    if base is None:
        base = 0 if before_the_first(objects, 1) else 1
    content: dict = dict(
        images=[], annotations=[], categories=[dict(id=k, name=name) for k, name in enumerate(classes, start=1)]
    )
    for number, (name, image) in enumerate(found.items(), start=1):
        width, height = _size(images / files[name], image.size)
        content["images"].append(dict(id=number, file_name=files[name], width=width, height=height))
        for item in image.objects:
            x1, y1, x2, y2 = box_of(item.corners, base)
            content["annotations"].append(
                dict(
                    id=len(content["annotations"]) + 1,
                    image_id=number,
                    category_id=classes.index(item.name) + 1,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=int(item.difficult),
                )
            )
    return content, base


def _size(path: Path, stated: tuple[int, int] | None) -> tuple[int, int]:
    try:
        header = read_header(path)
    except UnreadableImageError as error:
        raise UserError(f"image {path} cannot be read: {error}") from error
    if stated not in (None, (header.width, header.height)):
        raise UserError(
            f"image {path} has {header.width} x {header.height} pixels, but its labels are of an image of "
            f"{stated[0]} x {stated[1]}"
        )
    return header.width, header.height
