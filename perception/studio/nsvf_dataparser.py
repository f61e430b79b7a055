"""Folders in NSVF layout, and Tanks&Temples scenes in the same layout, for nerfstudio."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from nerfstudio.utils.colors import get_color
from PIL import Image
from torch import Tensor

from perception.studio.errors import SceneError
from perception.studio.scene_checks import check_folder, check_pose

SPLIT_PREFIXES = {"train": "0_", "val": "1_", "test": "2_"}
NEAR_SHARE = 0.05  # of far, for NSVF scenes
SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass
class NSVFDataParserConfig(DataParserConfig):
    """Reads `intrinsics.txt`, `pose/*.txt` (camera-to-world, OpenCV axes) and `rgb/*.png`, in the scene's own frame."""

    _target: type = field(default_factory=lambda: NSVF)
    data: Path = Path("data/nsvf/Wineholder")
    """Folder of the scene."""
    alpha_color: str | None = "white"
    """Background that transparent images are put on; the published object scenes are trained on white."""


@dataclass
class NSVF(DataParser):
    """Splits go by the first letter of file names: 0 train, 1 validation, 2 test; without any 2 (Tanks&Temples), 1 is
    both. `metadata` holds `near` and `far`: far is the largest distance between two training cameras; near is 0.05 far,
    and 0 for Tanks&Temples, whose `intrinsics.txt` is a matrix.
    """

    config: NSVFDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train") -> DataparserOutputs:
        folder = self.config.data
        check_folder(folder)
        focal, is_matrix = read_focal_length(folder / "intrinsics.txt")
        images = {name: list_images(folder, name) for name in ("train", split)}
        poses = {name: read_poses(folder, paths) for name, paths in images.items()}
        height, width = image_size(images[split][0])
        far = float(torch.cdist(poses["train"][:, :3, 3], poses["train"][:, :3, 3]).max())
        centre = poses["train"][:, :3, 3].mean(0)
        return DataparserOutputs(
            image_filenames=images[split],
            cameras=Cameras(
                camera_to_worlds=poses[split][:, :3],
                fx=focal,
                fy=focal,
                cx=width / 2,
                cy=height / 2,
                width=width,
                height=height,
                camera_type=CameraType.PERSPECTIVE,
            ),
            alpha_color=None if self.config.alpha_color is None else get_color(self.config.alpha_color),
            scene_box=SceneBox(aabb=read_box(folder / "bbox.txt", torch.stack([centre - far / 2, centre + far / 2]))),
            metadata={"near": 0.0 if is_matrix else NEAR_SHARE * far, "far": far},
        )


def read_focal_length(path: Path) -> tuple[float, bool]:
    """The focal length in pixels, and whether the file holds a 3 x 3 or 4 x 4 matrix.

    Raises:
        SceneError: the file is missing, holds something else, or the focal length is not positive.
    """
    numbers = _read_numbers(path)
    is_matrix = len(numbers) > 1 and len(numbers[0]) == len(numbers) and len(numbers) in (3, 4)
    focal = numbers[0][0]
    if not (np.isfinite(focal) and focal > 0):
        raise SceneError(f"{path} gives a focal length of {focal} pixels; it must be positive")
    return float(focal), is_matrix


def list_images(folder: Path, split: str) -> list[Path]:
    """The images of a split in order of their names.

    Raises:
        SceneError: there are none.
    """
    every = sorted(path for path in (folder / "rgb").glob("*") if path.suffix.lower() in SUFFIXES)
    prefix = SPLIT_PREFIXES[split]
    if split == "test" and not any(path.name.startswith(prefix) for path in every):
        prefix = SPLIT_PREFIXES["val"]
    chosen = [path for path in every if path.name.startswith(prefix)]
    if not chosen:
        raise SceneError(f"{folder / 'rgb'} has no images of the {split} split (names that begin with {prefix})")
    return chosen


def read_poses(folder: Path, images: list[Path]) -> Tensor:
    """Camera-to-world poses (N, 4, 4) with OpenGL axes.

    Raises:
        SceneError: an image has no pose, or a pose is not finite and rigid.
    """
    poses = []
    for image in images:
        path = folder / "pose" / f"{image.stem}.txt"
        if not path.is_file():
            count = len(list((folder / "pose").glob("*.txt")))
            raise SceneError(f"{image} has no pose {path} ({count} poses in all)")
        numbers = _read_numbers(path)
        if len(numbers) != 4 or any(len(row) != 4 for row in numbers):
            raise SceneError(f"{path} must hold a 4 x 4 camera-to-world matrix")
        pose = torch.tensor(numbers)
        check_pose(pose, str(path))
        poses.append(pose)
    flip = torch.tensor([1.0, -1.0, -1.0, 1.0])  # OpenCV's y and z axes point the other way
    return (torch.stack(poses) * flip).float()


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels.

    Raises:
        SceneError: the file is not an image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error}") from None


def read_box(path: Path, otherwise: Tensor) -> Tensor:
    """The scene's box (2, 3) from `bbox.txt` (its first six numbers), where there is one."""
    if not path.is_file():
        return otherwise
    numbers = [number for row in _read_numbers(path) for number in row]
    if len(numbers) < 6:
        raise SceneError(f"{path} must begin with the six numbers of a box")
    return torch.tensor(numbers[:6], dtype=torch.float32).view(2, 3)


def _read_numbers(path: Path) -> list[list[float]]:
    try:
        rows = [[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]
    except OSError:
        raise SceneError(f"the scene has no {path}") from None
    except ValueError as error:
        raise SceneError(f"{path} must hold numbers only: {error}") from None
    if not rows:
        raise SceneError(f"{path} is empty")
    return rows


nsvf_spec = DataParserSpecification(
    config=NSVFDataParserConfig(), description="NSVF and (masked) Tanks&Temples folders: intrinsics.txt, pose, rgb"
)
