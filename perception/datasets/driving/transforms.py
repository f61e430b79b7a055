"""Transforms of :class:`~perception.datasets.driving.rigs.NuScenesRigs`' items, in BEVFormer v2's order.

Images are uint8 RGB until the model's preprocessor. Draws are made once for an item, but for the distortion of colours,
which is drawn for each image; they come from Python's generator, and colours from NumPy's, both of which
:class:`~perception.datasets.resumable.SeedAugmentation` seeds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Container, Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import PhotoMetricDistortion
from mmengine.registry import TRANSFORMS
from mmengine.structures import BaseDataElement, InstanceData
from PIL import Image

from perception.datasets.images import UnreadableImageError, read_image
from perception.engine.errors import UserError
from perception.geometry import bev, boxes3d, cameras

from .grid_mask import draw_grid_mask
from .infos import CLASSES, PerspectiveObject

_META = (
    *("sample_idx", "token", "scene", "timestamp", "offsets", "ego_from_lidar", "global_from_ego", "camera_names"),
    *("lidar2img", "cam2img", "img_shape", "flip", "bda_inverse", "grid_mask", "annotated_cameras"),
)


class RigSample(BaseDataElement):
    """What is known of a frame (as metainfo), its targets, and what a model found (``pred_instances``)."""


@TRANSFORMS.register_module()
class LoadRigImages(BaseTransform):
    """Reads the images of all cameras and frames.

    An image must have the size that its calibration is for: one that was made smaller needs other intrinsics.
    """

    def transform(self, results: dict) -> dict:
        """Adds ``image``, (H, W, 3) uint8 RGB, to each view."""
        for view in _all_views(results):
            try:
                view["image"] = read_image(view["path"])
            except (UnreadableImageError, OSError) as error:
                raise UserError(f"{view['path']}: {error}") from error
            height, width = view["image"].shape[:2]
            if (width, height) != (view["width"], view["height"]):
                raise UserError(
                    f"{view['path']} is {width} x {height}, but its calibration is for {view['width']} x "
                    f"{view['height']}: resized images need other intrinsics"
                )
        return results


@TRANSFORMS.register_module()
class DistortRigColours(BaseTransform):
    """mmdet's ``PhotoMetricDistortion`` on each image by itself; results are cut at 0 and 255 where BEVFormer wraps.

    Args:
        brightness_delta, contrast_range, saturation_range, hue_delta: see mmdet.
    """

    def __init__(
        self,
        brightness_delta: int = 32,
        contrast_range: Sequence[float] = (0.5, 1.5),
        saturation_range: Sequence[float] = (0.5, 1.5),
        hue_delta: int = 18,
    ):
        self.distort = PhotoMetricDistortion(brightness_delta, contrast_range, saturation_range, hue_delta)

    def transform(self, results: dict) -> dict:
        """Changes the images."""
        for view in _all_views(results):
            distorted = self.distort.transform(dict(img=view["image"][..., ::-1]))["img"][..., ::-1]
            view["image"] = np.ascontiguousarray(np.round(distorted).clip(0, 255).astype(np.uint8))
        return results


@TRANSFORMS.register_module()
class LoadBoxes3D(BaseTransform):
    """Boxes and labels of the objects that have points and belong to a class.

    Args:
        classes: in the order of labels.
        zero_unknown_velocities: an unknown velocity is 0, as BEVFormer trains; otherwise NaN, for losses that leave it
            out.
        with_empty: keep objects without a point of LiDAR or radar.
    """

    def __init__(
        self, classes: Sequence[str] = CLASSES, *, zero_unknown_velocities: bool = True, with_empty: bool = False
    ):
        self.classes = {name: label for label, name in enumerate(classes)}
        self.zero_unknown_velocities, self.with_empty = zero_unknown_velocities, with_empty

    def transform(self, results: dict) -> dict:
        """Adds ``gt_boxes`` (N, 9) and ``gt_labels`` (N,)."""
        objects = results["objects"]
        kept = [
            k
            for k, (name, points) in enumerate(zip(objects["names"], objects["points"]))
            if name in self.classes and (points > 0 or self.with_empty)
        ]
        boxes = objects["boxes"][kept].reshape(-1, 9)
        if self.zero_unknown_velocities:
            boxes[:, 7:] = np.nan_to_num(boxes[:, 7:], nan=0.0)
        results["gt_boxes"] = torch.from_numpy(boxes)
        results["gt_labels"] = torch.tensor([self.classes[objects["names"][k]] for k in kept], dtype=torch.int64)
        return results


@TRANSFORMS.register_module()
class AugmentGround(BaseTransform):
    """BEVFormer's augmentation of the ground plane: boxes are moved, cameras are not; the model warps its features.

    Args:
        max_rotation: degrees, to either side.
        scales: least and largest factor.
        flip_x_prob, flip_y_prob: that x, or y, changes its sign.
    """

    def __init__(
        self,
        max_rotation: float = 22.5,
        scales: tuple[float, float] = (0.95, 1.05),
        flip_x_prob: float = 0.5,
        flip_y_prob: float = 0.5,
    ):
        self.max_rotation, self.scales = max_rotation, scales
        self.flip_x_prob, self.flip_y_prob = flip_x_prob, flip_y_prob

    def transform(self, results: dict) -> dict:
        """Moves ``gt_boxes``; adds ``bda_inverse`` (3, 3), float32, from augmented places to those before."""
        rotation = math.radians(random.uniform(-self.max_rotation, self.max_rotation))
        scale = random.uniform(*self.scales)
        flip_x, flip_y = random.random() < self.flip_x_prob, random.random() < self.flip_y_prob
        if "gt_boxes" in results:
            boxes = boxes3d.scale(boxes3d.rotate(results["gt_boxes"], rotation), scale)
            boxes = boxes3d.flip_x(boxes) if flip_x else boxes
            results["gt_boxes"] = boxes3d.flip_y(boxes) if flip_y else boxes
        matrix = bev.augmentation_matrix(rotation, scale, flip_x, flip_y)
        results["bda_inverse"] = torch.linalg.inv(matrix).float().numpy()
        return results


@TRANSFORMS.register_module()
class FilterBoxes3D(BaseTransform):
    """Leaves out boxes whose centres lie outside of a rectangle of the ground, and wraps yaws to [-pi, pi).

    Args:
        low, high: its corners (x, y) in metres.
        need_one: reject a frame of which no box is left: another is drawn in its place.
    """

    def __init__(self, low: Sequence[float], high: Sequence[float], *, need_one: bool = True):
        self.low, self.high, self.need_one = low, high, need_one

    def transform(self, results: dict) -> dict | None:
        """Changes ``gt_boxes`` and ``gt_labels``."""
        boxes = results["gt_boxes"]
        inside = boxes3d.centres_in_range(boxes, boxes.new_tensor(self.low), boxes.new_tensor(self.high))
        boxes = boxes[inside]
        boxes = torch.cat([boxes[:, :6], boxes3d.wrap_angle(boxes[:, 6:7]), boxes[:, 7:]], 1)
        results["gt_boxes"], results["gt_labels"] = boxes, results["gt_labels"][inside]
        return None if self.need_one and not len(boxes) else results


@TRANSFORMS.register_module()
class CropResizeRig(BaseTransform):
    """Cuts the top off all images and resizes the rest, with the matrices and the 2D boxes of the cameras.

    A mirrored image keeps its matrices and boxes: the model mirrors its features back.

    Args:
        size: (height, width) that images have; those of another size are refused, because where the horizon is depends
            on the sensor.
        top: rows to cut off.
        heights: of the result, one of which is drawn; the width follows.
        flip_prob: of mirrored images.
    """

    def __init__(
        self,
        size: tuple[int, int] = (900, 1600),
        top: int = 260,
        heights: Sequence[int] = (640,),
        flip_prob: float = 0.0,
    ):
        if not 0 <= top < size[0]:
            raise ValueError(f"top must be at least 0 and less than the height {size[0]}, not {top}")
        self.size, self.top, self.heights, self.flip_prob = tuple(size), top, tuple(heights), flip_prob

    def transform(self, results: dict) -> dict:
        """Changes images and intrinsics; adds ``flip`` and changes the boxes of ``camera_objects``."""
        height = random.choice(self.heights)
        flip = random.random() < self.flip_prob
        for view in _all_views(results):
            if view["image"].shape[:2] != self.size:
                found = " x ".join(map(str, view["image"].shape[1::-1]))
                raise UserError(
                    f"{view['path']} is {found}, but the recipe crops images of {self.size[1]} x {self.size[0]}: set "
                    "size, top and heights of CropResizeRig"
                )
            image, view["intrinsics"] = crop_resize(view["image"], view["intrinsics"], self.top, height)
            view["image"] = np.ascontiguousarray(image[:, ::-1]) if flip else image
        results["flip"] = flip
        if "camera_objects" in results:
            scale = height / (self.size[0] - self.top)
            limits = np.array(results["views"][0][0]["image"].shape[1::-1] * 2, np.float64)
            results["camera_boxes"] = [
                [np.clip((np.array(o.box) - [0, self.top, 0, self.top]) * scale, 0, limits) for o in objects]
                for objects in results["camera_objects"]
            ]
        return results


def crop_resize(image: np.ndarray, intrinsics: np.ndarray, top: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) without its upper rows at another height, by Pillow's bicubic filter, and its matrix."""
    scale = height / (image.shape[0] - top)
    resized = Image.fromarray(image[top:]).resize((int(image.shape[1] * scale), height), Image.Resampling.BICUBIC)
    # Of both sides the exact factor, although the width is cut to a whole number: as in BEVFormer.
    matrix = cameras.crop_and_resize(torch.from_numpy(intrinsics), (0, top), (scale, scale))
    return np.asarray(resized), matrix.numpy()


@TRANSFORMS.register_module()
class NeedCameraObjects(BaseTransform):
    """Rejects frames in which no camera sees an object: another is drawn in their place, as in BEVFormer v2.

    Args:
        classes: that count.
    """

    def __init__(self, classes: Sequence[str] = CLASSES):
        self.classes = frozenset(classes)

    def transform(self, results: dict) -> dict | None:
        """Changes nothing; belongs behind `CropResizeRig`, which moves objects out of sight."""
        pairs = zip(results["camera_objects"], results["camera_boxes"])
        return results if any(_shown(objects, boxes, self.classes) for objects, boxes in pairs) else None


@TRANSFORMS.register_module()
class DrawGridMask(BaseTransform):
    """Draws BEVFormer's grid mask, one for all images of the frame itself.

    The model's preprocessor multiplies the normalised image with it.

    Args:
        prob: that there is one.
        size_divisor: to which images are padded before the mask is applied.
    """

    def __init__(self, prob: float = 0.7, size_divisor: int = 32):
        self.prob, self.size_divisor = prob, size_divisor

    def transform(self, results: dict) -> dict:
        """Adds ``grid_mask``, bool (H, W) of the padded size, where one was drawn."""
        if random.random() < self.prob:
            sides = results["views"][0][0]["image"].shape[:2]
            height, width = (math.ceil(side / self.size_divisor) * self.size_divisor for side in sides)
            results["grid_mask"] = draw_grid_mask(height, width)
        return results


@TRANSFORMS.register_module()
class PackRig(BaseTransform):
    """To ``inputs`` (``img`` (T, cameras, 3, H, W) uint8 RGB) and ``data_samples`` (a :class:`RigSample`).

    Metainfo: ``lidar2img`` (T, cameras, 4, 4) from the LiDAR's frame of the frame itself, ``cam2img`` (cameras, 3, 3)
    of the frame itself, ``img_shape`` (H, W), and what transforms have drawn. Targets: ``gt_instances`` (``bboxes_3d``,
    ``labels``), ``camera_instances``, a list for the cameras (``boxes_2d``, ``rotations``, ``translations``, ``sizes``,
    ``labels``, ``attributes``, ``speeds``). With them ``annotated_cameras``, a bool for each: whether it saw an object
    before its image was cropped.

    Args:
        classes: in the order of labels, for the cameras' objects.
    """

    def __init__(self, classes: Sequence[str] = CLASSES):
        self.classes = {name: label for label, name in enumerate(classes)}

    def transform(self, results: dict) -> dict:
        """Keeps what a model needs.

        Raises:
            UserError: images of different sizes.
        """
        shapes = {view["image"].shape: view["name"] for view in _all_views(results)}
        if len(shapes) > 1:
            sizes = ", ".join(f"{name}: {shape[1]} x {shape[0]}" for shape, name in shapes.items())
            raise UserError(f"the cameras of a rig must have one size when they are packed ({sizes})")
        images = np.stack([[view["image"] for view in frame] for frame in results["views"]])
        current = results["views"][results["offsets"].index(0)]
        results["lidar2img"] = np.stack([[_image_matrix(view) for view in frame] for frame in results["views"]])
        results["cam2img"] = np.stack([view["intrinsics"] for view in current])
        results["camera_names"] = tuple(view["name"] for view in current)
        results["img_shape"] = images.shape[2:4]
        if "camera_boxes" in results:
            seen = results["camera_objects"]
            results["annotated_cameras"] = tuple(any(one.name in self.classes for one in some) for some in seen)
        sample = RigSample(metainfo={key: results[key] for key in _META if key in results})
        if "gt_boxes" in results:
            sample.gt_instances = InstanceData(bboxes_3d=results["gt_boxes"].float(), labels=results["gt_labels"])
        if "camera_boxes" in results:
            sample.camera_instances = [
                self._camera_instances(objects, boxes)
                for objects, boxes in zip(results["camera_objects"], results["camera_boxes"])
            ]
        pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 1, 4, 2, 3)))
        return dict(inputs=dict(img=pixels), data_samples=sample)

    def _camera_instances(self, objects: list, boxes: list[np.ndarray]) -> InstanceData:
        """Those objects that the cropped image shows."""
        kept = _shown(objects, boxes, self.classes)
        chosen = [objects[k] for k in kept]
        rows = {
            "boxes_2d": ([boxes[k] for k in kept], 4),
            "rotations": ([one.rotation for one in chosen], 4),
            "translations": ([one.translation for one in chosen], 3),
            "sizes": ([one.size for one in chosen], 3),
        }
        tensors = {
            name: torch.from_numpy(np.array(values, np.float32).reshape(-1, width))
            for name, (values, width) in rows.items()
        }
        return InstanceData(
            **tensors,
            labels=torch.tensor([self.classes[one.name] for one in chosen], dtype=torch.int64),
            attributes=torch.tensor([one.attribute for one in chosen], dtype=torch.int64),
            speeds=torch.tensor([one.speed for one in chosen], dtype=torch.float32),
        )


def _shown(objects: Sequence[PerspectiveObject], boxes: Sequence[np.ndarray], classes: Container[str]) -> list[int]:
    """Numbers of the objects of a class that lie before the camera and have an area in its image."""
    return [
        k
        for k, (one, box) in enumerate(zip(objects, boxes))
        if one.name in classes and min(box[2:] - box[:2]) > 1e-5 and one.translation[2] > 0
    ]


def _all_views(results: dict) -> list[dict]:
    return [view for frame in results["views"] for view in frame]


def _image_matrix(view: dict) -> np.ndarray:
    pose = torch.from_numpy(view["camera_from_lidar"])
    return cameras.image_matrix(torch.from_numpy(view["intrinsics"]), pose).numpy()
