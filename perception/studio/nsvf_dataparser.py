"""Folders in NSVF layout, and Tanks&Temples scenes in the same layout, for nerfstudio."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from nerfstudio.utils.colors import get_color
from torch import Tensor

from perception.studio.coordinates import far_centre
from perception.studio.depth_range import camera_far
from perception.studio.errors import SceneError
from perception.studio.findings import counted
from perception.studio.image_files import look_at_all
from perception.studio.intrinsics import fit_size
from perception.studio.nsvf_intrinsics import StatedIntrinsics, read_intrinsics, read_numbers
from perception.studio.transforms import OTHER_SPLIT, check_folder, check_pose

SPLIT_PREFIXES = {"train": "0_", "val": "1_", "test": "2_"}
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
    """Splits go by the first letter of file names: 0 train, 1 validation, 2 test; of the last two, one stands in for
    the other where it is missing (Tanks&Temples). `metadata` holds `near` and `far`: far goes by the training cameras
    (:func:`~perception.studio.depth_range.camera_far`); near is the file's near plane if it is positive, else 0.05 far,
    and 0 for Tanks&Temples, whose `intrinsics.txt` is a matrix.

    Poses far from the origin are moved to it in double precision.
    """

    config: NSVFDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train") -> DataparserOutputs:
        folder = self.config.data
        check_folder(folder)
        stated = read_intrinsics(folder / "intrinsics.txt")
        images = {name: list_images(folder, name) for name in ("train", split)}
        poses = {name: read_poses(folder, paths) for name, paths in images.items()}
        centre = far_centre(poses["train"][:, :3, 3].numpy())
        shift = torch.zeros(3, dtype=torch.float64) if centre is None else torch.from_numpy(centre)
        for name in poses:
            poses[name][:, :3, 3] -= shift
            poses[name] = poses[name].float()
        sizes = _sizes(images[split], stated)
        train = Cameras(poses["train"][:, :3], 1.0, 1.0, 1.0, 1.0, 2, 2)
        far, _ = camera_far(train)
        middle = poses["train"][:, :3, 3].mean(0)
        box = read_box(folder / "bbox.txt", None if centre is None else shift)
        return DataparserOutputs(
            image_filenames=images[split],
            cameras=stated.cameras(poses[split][:, :3], sizes),
            alpha_color=None if self.config.alpha_color is None else get_color(self.config.alpha_color),
            scene_box=SceneBox(aabb=torch.stack([middle - far / 2, middle + far / 2]) if box is None else box),
            metadata={"near": stated.near_of(far), "far": far},
            dataparser_transform=torch.cat([torch.eye(3), -shift.float()[:, None]], 1),
        )


def list_images(folder: Path, split: str) -> list[Path]:
    """The images of a split in order of their names.

    Raises:
        SceneError: there are none.
    """
    every = sorted(path for path in (folder / "rgb").glob("*") if path.suffix.lower() in SUFFIXES)
    by_split = {name: [path for path in every if path.name.startswith(SPLIT_PREFIXES[name])] for name in SPLIT_PREFIXES}
    chosen = by_split[split] or by_split.get(OTHER_SPLIT.get(split, ""), [])
    if not chosen:
        prefix = SPLIT_PREFIXES[split]
        raise SceneError(f"{folder / 'rgb'} has no images of the {split} split (names that begin with {prefix})")
    return chosen


def read_poses(folder: Path, images: list[Path]) -> Tensor:
    """Camera-to-world poses (N, 4, 4) with OpenGL axes in double precision.

    Raises:
        SceneError: an image has no pose, or a pose is not finite and rigid.
    """
    poses, faults = [], []
    for image in images:
        try:
            poses.append(_read_pose(folder / "pose" / f"{image.stem}.txt", image))
        except SceneError as error:
            faults.append(str(error))
    if faults:
        raise SceneError(counted(faults))
    flip = torch.tensor([1.0, -1.0, -1.0, 1.0])  # OpenCV's y and z axes point the other way
    return torch.stack(poses) * flip


def _read_pose(path: Path, image: Path) -> Tensor:
    if not path.is_file():
        count = len(list(path.parent.glob("*.txt")))
        raise SceneError(f"{image} has no pose {path} ({count} poses in all)")
    numbers = read_numbers(path)
    if len(numbers) != 4 or any(len(row) != 4 for row in numbers):
        raise SceneError(f"{path} must hold a 4 x 4 camera-to-world matrix")
    pose = torch.tensor(numbers, dtype=torch.float64)
    check_pose(pose, str(path))
    return pose


def _sizes(images: list[Path], stated: StatedIntrinsics) -> list[tuple[int, int]]:
    """Width and height of each image.

    Raises:
        SceneError: an image cannot be read, or has not the shape of the others.
    """
    files = look_at_all(images)
    if faults := [file.fault for file in files if file.fault]:
        raise SceneError(counted(faults))
    sizes = [(file.width, file.height) for file in files]
    wanted = stated.size or sizes[0]
    faults = [
        f"{file.path} is {file.width} x {file.height} pixels, but its camera {wanted[0]} x {wanted[1]}"
        for file, size in zip(files, sizes)
        if not (fit_size(wanted, size) if stated.size else size == wanted)
    ]
    if faults:
        raise SceneError(counted(faults))
    return sizes


def read_box(path: Path, shift: Tensor | None) -> Tensor | None:
    """The scene's box (2, 3) from `bbox.txt` (its first six numbers), where there is one, moved by minus ``shift``."""
    if not path.is_file():
        return None
    numbers = [number for row in read_numbers(path) for number in row]
    if len(numbers) < 6:
        raise SceneError(f"{path} must begin with the six numbers of a box")
    box = torch.tensor(numbers[:6], dtype=torch.float64).view(2, 3)
    return (box if shift is None else box - shift).float()


nsvf_spec = DataParserSpecification(
    config=NSVFDataParserConfig(), description="NSVF and (masked) Tanks&Temples folders: intrinsics.txt, pose, rgb"
)
