"""Cutting images and instance masks in COCO's format into overlapping patches, as iSAID's are trained and tested on.

The last patch of a row or a column is moved back to the border, and nothing is padded: an image that is smaller than a
patch stays as it is. Masks are filled as COCO's tools fill them, before they are cut, so that the patches of an image
agree pixel by pixel; they are written as run lengths, with the boxes and areas of what is left. An object belongs to
every patch that shows a share of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle

from perception.datasets.coco_file import read_coco
from perception.datasets.dota import Patch
from perception.datasets.folders import listed, names_below
from perception.datasets.images import IMAGE_SUFFIXES, UnreadableImageError
from perception.datasets.masks import MaskCrop, object_mask
from perception.datasets.synthetic.folder import Recipe, Summary, publish
from perception.datasets.windows import ImageWindows, WholeImage, Window
from perception.engine.errors import UserError
from perception.geometry.windows import sliding_windows

VERSION = 1  # to be raised by every change that alters the files


@dataclass(frozen=True)
class PatchParams:
    """How images are cut.

    Attributes:
        size, overlap: side of the patches, and what neighbours share, in pixels.
        object_share: an object belongs to patches that show more than this share of its mask.
        labelled: False: images have no annotations, only categories are known.
    """

    size: int = 512
    overlap: int = 128
    object_share: float = 0.0
    labelled: bool = True

    def __post_init__(self):
        if not 0 <= self.overlap < self.size:
            raise ValueError(f"the overlap must be at least 0 and below the size, not {self.overlap} with {self.size}")
        if not 0 <= self.object_share < 1:
            raise ValueError(f"object_share must be at least 0 and below 1, not {self.object_share}")


def patches_of(width: int, height: int, params: PatchParams) -> list[Window]:
    """The patches of an image: x in the outer loop, y in the inner one.

    Example:
        >>> [(patch.left, patch.right) for patch in patches_of(1000, 300, PatchParams())]
        [(0, 512), (384, 896), (488, 1000)]
    """
    return [
        Window(x1, y1, min(x2, width) - x1, min(y2, height) - y1)
        for x1, y1, x2, y2 in sliding_windows(width, height, params.size, params.overlap).tolist()
    ]


def split_coco(
    annotations: Path,
    images: Path,
    out: Path,
    params: PatchParams,
    *,
    name: str = "annotations.json",
    open_image: Callable[[Path], ImageWindows] = WholeImage,
    overwrite: bool = False,
    workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
    on_problem: Callable[[str], None] | None = None,
) -> Summary:
    """Writes `out/images/*.png` and the annotation file `out/NAME`.

    Nothing is visible at `out` before everything is there. A complete set that was made of the same files with the same
    parameters is left as it is. An image that cannot be read is left out and counted as `unreadable`, objects without a
    mask as `skipped`. Categories keep their ids and their order.

    Args:
        annotations: a file in COCO's format; `params.labelled` says whether its images and objects count, or its
            categories alone.
        images: the folder that names of images are relative to; without labels, all of its images are cut.
        open_image: opens an image file, or raises `UnreadableImageError`.
        overwrite: replace a set that was made of other files or with other parameters.
        workers: threads that encode patches.
        on_progress: called with the number of finished images and their total.
        on_problem: called with a sentence for each image, and for the objects of an image, that are left out.

    Raises:
        UserError: the annotations are not of COCO's format, or two images have the same name.
        FileExistsError: `out` holds something else.
        OSError: a file cannot be written.
        ValueError: no image could be read.
    """
    content = read_coco(annotations)
    sources = _labelled(content) if params.labelled else _unlabelled(images)
    _require_own_names([source.name for source in sources], images)

    def fill(root: Path) -> dict[str, dict[str, int]]:
        (root / "images").mkdir()
        writer = _Writer(root, content["categories"])
        with ThreadPoolExecutor(workers) as pool:
            for done, source in enumerate(sources, start=1):
                try:
                    _cut(source, images / source.name, open_image, params, writer, pool)
                except UnreadableImageError as error:
                    writer.counts["unreadable"] += 1
                    if on_problem is not None:
                        on_problem(f"{images / source.name} is left out: {error}")
                else:
                    if writer.skipped and on_problem is not None:
                        on_problem(
                            f"{len(writer.skipped)} objects of {source.name} have no mask (no polygon of three points) "
                            f"and are left out: {listed(writer.skipped)}"
                        )
                if on_progress is not None:
                    on_progress(done, len(sources))
        if not writer.counts["images"]:
            raise ValueError(f"none of {len(sources)} images could be read")
        writer.finish(name)
        return {"patches": writer.counts}

    values = json.loads(json.dumps(asdict(params)))
    files = _fingerprint([annotations, *(images / source.name for source in sources)])
    recipe = Recipe("coco_patches", VERSION, {**values, "name": name, "files": files})
    return publish(Path(out), recipe, fill, overwrite=overwrite)


@dataclass(frozen=True)
class _Source:
    """An image with its stated size, if there is one, and its objects."""

    name: str
    size: tuple[int, int] | None
    objects: Sequence[dict] = ()


def _labelled(content: dict) -> list[_Source]:
    objects: dict[object, list[dict]] = {image["id"]: [] for image in content["images"]}
    if len(objects) < len(content["images"]):
        raise UserError("several images of the annotations have the same id, so that objects could belong to either")
    categories = {category["id"] for category in content["categories"]}
    for annotation in content["annotations"]:
        for key, known, what in (("image_id", objects, "image"), ("category_id", categories, "category")):
            if annotation.get(key) not in known:
                raise UserError(
                    f"object {annotation.get('id')!r} has the {what} {annotation.get(key)!r}, which the file does not "
                    "list"
                )
        objects[annotation["image_id"]].append(annotation)
    return [
        _Source(image["file_name"], _size(image), objects[image["id"]])
        for image in sorted(content["images"], key=lambda image: image["file_name"])
    ]


def _size(image: dict) -> tuple[int, int] | None:
    return (image["width"], image["height"]) if image.get("width") and image.get("height") else None


def _unlabelled(images: Path) -> list[_Source]:
    names = [name for name in names_below(images) if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if not names:
        raise UserError(f"{images} holds no image")
    return [_Source(name, None) for name in names]


def _require_own_names(names: Sequence[str], images: Path) -> None:
    stems: dict[str, str] = {}
    for name in names:
        other = stems.setdefault(Path(name).stem, name)
        if other != name:
            raise UserError(f"{images / other} and {images / name} would both become {Path(name).stem}__...png")


def _fingerprint(paths: Sequence[Path]) -> str:
    """Changes when a file is added, removed or written anew."""
    digest = hashlib.sha256()
    for path in paths:
        state = path.stat() if path.exists() else None
        digest.update(repr((path.name, state and (state.st_size, state.st_mtime_ns))).encode())
    return digest.hexdigest()[:16]


def _cut(
    source: _Source,
    path: Path,
    open_image: Callable[[Path], ImageWindows],
    params: PatchParams,
    writer: _Writer,
    pool: ThreadPoolExecutor,
) -> None:
    """Writes the patches of one image, or none of them.

    Raises:
        UnreadableImageError: the image cannot be read, or is not the one that was annotated.
    """
    if not path.exists():
        raise UnreadableImageError("there is no such file")
    image = open_image(path)
    try:
        if source.size not in (None, (image.width, image.height)):
            raise UnreadableImageError(
                f"it has {image.width} x {image.height} pixels, but annotations of an image of {source.size[0]} x "
                f"{source.size[1]}"
            )
        writer.start()
        masks = list(_masks(source.objects, image.width, image.height, writer.skipped))
        windows = sorted(patches_of(image.width, image.height, params), key=lambda window: window.top)
        pending = []
        for window in windows:  # from the top down, as readers of rows want it
            patch = Patch(path.stem, params.size, window.left, window.top)
            pixels = np.ascontiguousarray(image.read(window)[..., ::-1])
            pending.append(pool.submit(cv2.imencode, ".png", pixels))
            writer.add(f"{patch.name}.png", window, _inside(masks, window, params.object_share))
            if len(pending) > 8:
                writer.write(pending.pop(0).result()[1])
        for encoded in pending:
            writer.write(encoded.result()[1])
        writer.keep()
    except UnreadableImageError:
        writer.drop()
        raise
    finally:
        image.close()


def _masks(objects: Sequence[dict], width: int, height: int, skipped: list) -> Iterator[tuple[dict, MaskCrop]]:
    for annotation in objects:
        try:
            mask = object_mask(annotation.get("segmentation"), width, height)
        except ValueError as error:
            raise UserError(f"object {annotation.get('id')!r} of the annotations: {error}") from error
        if mask is None:
            skipped.append(annotation.get("id"))
        else:
            yield annotation, mask


def _inside(masks: Sequence[tuple[dict, MaskCrop]], window: Window, least: float) -> Iterator[tuple[dict, np.ndarray]]:
    """The objects that a window shows, with their masks in it."""
    for annotation, mask in masks:
        part = mask.within(window)
        if part is not None and part.sum() > least * mask.inside.sum():
            yield annotation, part


@dataclass
class _Writer:
    """Collects patches of one image after the other, and can take back those of the current one."""

    root: Path
    categories: Sequence[dict]
    images: list[dict] = field(default_factory=list)
    annotations: list[dict] = field(default_factory=list)
    skipped: list = field(default_factory=list)
    counts: dict[str, int] = field(
        default_factory=lambda: dict(images=0, patches=0, objects=0, skipped=0, unreadable=0)
    )
    _kept: tuple[int, int] = (0, 0)
    _written: int = 0

    def start(self) -> None:
        """Begin an image."""
        self.skipped.clear()

    def add(self, name: str, window: Window, objects: Iterator[tuple[dict, np.ndarray]]) -> None:
        """Remember a patch and its objects."""
        number = len(self.images) + 1
        self.images.append(dict(id=number, file_name=name, width=window.width, height=window.height))
        for annotation, inside in objects:
            encoded = rle.encode(np.asfortranarray(inside, dtype=np.uint8))
            self.annotations.append(
                dict(
                    id=len(self.annotations) + 1,
                    image_id=number,
                    category_id=annotation["category_id"],
                    bbox=rle.toBbox(encoded).tolist(),
                    area=int(rle.area(encoded)),
                    segmentation=dict(size=encoded["size"], counts=encoded["counts"].decode("ascii")),
                    iscrowd=int(annotation.get("iscrowd") or 0),
                )
            )

    def write(self, encoded: np.ndarray) -> None:
        """Write the pixels of the next patch of those that were added."""
        (self.root / "images" / self.images[self._written]["file_name"]).write_bytes(encoded.tobytes())
        self._written += 1

    def keep(self) -> None:
        """Count the patches of an image that is done."""
        self.counts["images"] += 1
        self.counts["skipped"] += len(self.skipped)
        self._kept = len(self.images), len(self.annotations)

    def drop(self) -> None:
        """Remove what there is of an image that turned out to be damaged."""
        images, annotations = self._kept
        for image in self.images[images : self._written]:
            (self.root / "images" / image["file_name"]).unlink()
        del self.images[images:], self.annotations[annotations:]
        self._written = images

    def finish(self, name: str) -> None:
        """Write the annotation file."""
        self.counts.update(patches=len(self.images), objects=len(self.annotations))
        content = dict(images=self.images, annotations=self.annotations, categories=list(self.categories))
        (self.root / name).write_text(json.dumps(content))
