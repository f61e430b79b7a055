"""Loading transforms: images and maps of classes as :mod:`perception.datasets.images` reads them, faults by name."""

from __future__ import annotations

import cv2
import numpy as np
from mmcv.transforms import TRANSFORMS, BaseTransform
from mmdet.datasets.transforms import LoadPanopticAnnotations

from perception.datasets.images import UnreadableImageError, read_header, read_image
from perception.datasets.seg_maps import Labels, read_seg_map, seg_map_fault, train_labels
from perception.engine.errors import UserError


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Reads ``img_path``, in OpenCV's channel order (BGR) as data preprocessors expect it.

    Of ordinary files with 8 bits a channel, the pixels are those of mmcv's ``LoadImageFromFile`` with either of its
    backends. Folder inference gives a model the same pixels.

    Args:
        to_float32: pixels as float32 instead of uint8, for transforms that change colours more than once.
    """

    def __init__(self, to_float32: bool = False):
        self.to_float32 = to_float32

    def transform(self, results: dict) -> dict:
        """Adds ``img`` (H, W, 3), ``img_shape`` and ``ori_shape`` (H, W).

        Raises:
            UserError: the file cannot be read, and why; or it is not of the size that annotations give it.
        """
        path = results["img_path"]
        try:
            image = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2BGR)
        except UnreadableImageError as error:
            raise UserError(
                f"image {path} cannot be read: {error}; mend the file or take it out of the data"
            ) from error
        stated = (results.get("height"), results.get("width"))
        if None not in stated and stated != image.shape[:2]:
            raise UserError(
                f"image {path} has {image.shape[1]} x {image.shape[0]} pixels, but annotations of an image of "
                f"{stated[1]} x {stated[0]}: use the image that was annotated, or correct the annotations"
            )
        if self.to_float32:
            image = image.astype(np.float32)
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(to_float32={self.to_float32})"


@TRANSFORMS.register_module()
class LoadSegMapAnnotations(BaseTransform):
    """Reads ``seg_map_path``, a map of classes of the image's size, in place of mmseg's ``LoadAnnotations``.

    Which values are labels follows from the data set (see :mod:`perception.datasets.segmentation`): its classes, its
    ``reduce_zero_label`` and, where only some of the classes are used, its ``label_map``. With another data set than
    ours, every value counts as a label. It comes after :class:`LoadImage`, before or after the image is resized.
    """

    def transform(self, results: dict) -> dict:
        """Adds ``gt_seg_map`` (H, W), uint8, where 255 is ignored.

        Raises:
            UserError: the file cannot be read, has another size than the image, or values that are no labels.
        """
        path = results["seg_map_path"]
        labels = Labels(results.get("num_labels", 255), results["reduce_zero_label"])
        try:
            seg_map = read_seg_map(path)
        except UnreadableImageError as error:
            raise UserError(f"mask {path} cannot be used: {error}") from error
        height, width = results["ori_shape"]
        fault = seg_map_fault(seg_map, (width, height), labels)
        if fault:
            raise UserError(f"mask {path} {fault}; the image is {results['img_path']}")
        results["gt_seg_map"] = train_labels(seg_map, labels, results.get("label_map"))
        results["seg_fields"].append("gt_seg_map")
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@TRANSFORMS.register_module()
class LoadPanopticMapAnnotations(LoadPanopticAnnotations):
    """mmdet's transform, with faults of ``seg_map_path`` by name."""

    def transform(self, results: dict) -> dict:
        """See mmdet's transform.

        Raises:
            UserError: the map cannot be read, or has another size than the image.
        """
        path = results.get("seg_map_path")
        if path is not None:
            try:
                header = read_header(path)
            except UnreadableImageError as error:
                raise UserError(f"panoptic map {path} cannot be used: {error}") from error
            height, width = results["ori_shape"]
            if (header.width, header.height) != (width, height):
                sizes = f"{header.width} x {header.height} pixels, but its image {width} x {height}"
                raise UserError(f"panoptic map {path} has {sizes}; the image is {results['img_path']}")
        try:
            return super().transform(results)
        except Exception as error:
            # A file may break off behind its header, which OpenCV answers with nothing.
            _check_pixels(path, error)
            raise


def _check_pixels(path: str | None, cause: Exception) -> None:
    try:
        if path is not None:
            read_image(path)
    except UnreadableImageError as error:
        raise UserError(f"panoptic map {path} cannot be used: {error}") from cause
