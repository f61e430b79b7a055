"""Scenes in LLFF layout, `poses_bounds.npy` beside folders of images, for nerfstudio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from nerfstudio.utils.colors import get_color
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from perception.geometry.poses import average_pose
from perception.geometry.se3 import compose, invert
from perception.studio.depth_range import frustum_box
from perception.studio.errors import SceneError
from perception.studio.findings import counted
from perception.studio.image_files import ImageFile, look_at_all
from perception.studio.image_pairs import KEY, HighResolution
from perception.studio.intrinsics import fit_size
from perception.studio.llff_images import ImageFolder, find_folders, folder_of, match_files, read_names
from perception.studio.poses_bounds import PosesBounds, read_poses_bounds
from perception.studio.transforms import check_folder, check_pose, read_json

BOUND_FACTOR = 0.75
"""Of the smallest near bound, which the scene's scale makes 1: near is 4 / 3 then, behind a near plane at 1."""


@dataclass
class LLFFDataParserConfig(DataParserConfig):
    """Reads `poses_bounds.npy` and a folder of images (`images`, `images_4`, `images_1008x756`)."""

    _target: type = field(default_factory=lambda: LLFF)
    data: Path = Path("data/nerf_llff_data/fern")
    """Folder of the scene."""
    downscale_factor: int | None = None
    """How many times smaller than poses_bounds.npy says the images are: 4 reads images_4 (or images_1008x756), 1 reads
    images. By default the largest there are."""
    sr_scale: int = 1
    """For super-resolution: pairs the images with ones that are so many times larger (4 and a downscale factor of 4:
    those of images)."""
    eval_interval: int = 8
    """Every so-manieth image, the first one among them, is held out of training; 0 holds out none."""
    eval_names: tuple[str, ...] = ()
    """Names of the images that are held out instead (such as cam00)."""
    near: float | None = None
    """Smallest depth of the scene in the file's units, instead of the bounds in the file."""
    far: float | None = None
    """Largest depth of the scene in the file's units, instead of the bounds in the file."""
    frame: Path | None = None
    """The dataparser_transforms.json of a run, whose scale and origin are taken. By default they go by all rows of
    poses_bounds.npy, and change when a row is added or removed."""
    alpha_color: str | None = "white"
    """Background that transparent images are put on."""


@dataclass(frozen=True)
class LLFFViews:
    """All views of a scene, whatever their split: `metadata["llff"]`."""

    names: tuple[str, ...]
    """(N) of the image files."""
    poses: Tensor
    """(N, 3, 4) camera-to-world, OpenGL axes, in the frame of the cameras."""
    bounds: Tensor
    """(N, 2) smallest and largest depth that each view sees, in the same units."""
    held_out: tuple[int, ...]
    """Which of them are not trained on."""


@dataclass
class LLFF(DataParser):
    """The pose loader of NeRF's LLFF scenes: places and bounds times 1 / (0.75 smallest near bound), then the frame in
    which the average pose is the identity. All rows of the file count for both, whatever the split.

    Training views are those that are not held out; of these all are tested, and the first one is the validation view.
    `metadata` holds `near` and `far`, the smallest and largest bound; `llff` (:class:`LLFFViews`); and, with a
    ``sr_scale`` above 1, `high_resolution` (:class:`~perception.studio.image_pairs.HighResolution`).

    Intrinsics go by the sizes of the files: an `images_4` that is no exact quarter has focal lengths that are none.
    """

    config: LLFFDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train") -> DataparserOutputs:
        scene, config = self._scene, self.config
        held_out = _held_out(config, scene.folder.files)
        rows = _rows(split, len(scene.folder.files), held_out)
        names = tuple(path.name for path in scene.folder.files)
        near, far = float(scene.bounds[:, 0].min()), float(scene.bounds[:, 1].max())
        views = LLFFViews(names, scene.cameras.camera_to_worlds, scene.bounds, tuple(held_out))
        metadata = {"near": near, "far": far, "llff": views}
        if scene.larger is not None:
            metadata[KEY] = HighResolution(tuple(scene.larger.files[row] for row in rows), config.sr_scale)
        return DataparserOutputs(
            image_filenames=[scene.folder.files[row] for row in rows],
            cameras=scene.cameras[torch.tensor(rows)],
            alpha_color=None if config.alpha_color is None else get_color(config.alpha_color),
            scene_box=SceneBox(aabb=frustum_box(scene.cameras, near, far)),
            metadata=metadata,
            dataparser_transform=scene.transform[:3].float(),
            dataparser_scale=scene.scale,
        )

    @cached_property
    def _scene(self) -> _Scene:
        """What the splits have in common."""
        config = self.config
        check_folder(config.data)
        _check_settings(config)
        table = read_poses_bounds(config.data, config.near, config.far)
        folder, larger = self._folders(table)
        cameras = _cameras(table, folder, exact=config.downscale_factor is not None)
        transform, scale = self._frame(table)
        poses = (transform @ table.poses)[:, :3]
        poses[..., 3] *= scale
        cameras.camera_to_worlds = poses.float()
        return _Scene(folder, larger, cameras, (table.bounds * scale).float(), transform, scale)

    def _folders(self, table: PosesBounds) -> tuple[ImageFolder, ImageFolder | None]:
        """The folder of the images, and that of the larger ones with which they are paired."""
        config = self.config
        found = find_folders(config.data, float(table.sizes[0, 0]))
        factor = config.downscale_factor
        if factor is None:
            pairs = [
                known for known in sorted(found) if not known % config.sr_scale and known // config.sr_scale in found
            ]
            factor = pairs[0] if pairs else min(found, default=1) * config.sr_scale
            if factor > 1:
                CONSOLE.log(f"{config.data}: reading images that are {factor} times smaller (--downscale-factor)")
        names = read_names(config.data, len(table))
        folder = self._match(found, factor, table, names)
        if config.sr_scale == 1:
            return folder, None
        return folder, self._match(found, factor // config.sr_scale, table, names)

    def _match(
        self, found: dict[int, Path], factor: int, table: PosesBounds, names: Sequence[str] | None
    ) -> ImageFolder:
        path = folder_of(self.config.data, found, factor)
        others = [other for other in found.values() if other != path]
        return match_files(path, factor, len(table), names, others)

    def _frame(self, table: PosesBounds) -> tuple[Tensor, float]:
        """What takes poses of the file to the scene's frame: a rigid motion (4, 4), then a scale of the places."""
        if self.config.frame is not None:
            return _read_frame(self.config.frame)
        return invert(average_pose(table.poses)), 1 / (BOUND_FACTOR * float(table.bounds[:, 0].min()))


class _Scene(NamedTuple):
    folder: ImageFolder
    larger: ImageFolder | None
    cameras: Cameras  # of all rows
    bounds: Tensor  # (N, 2) in the cameras' units
    transform: Tensor  # (4, 4) and then scale: from the file's frame to that of the cameras
    scale: float


def _check_settings(config: LLFFDataParserConfig) -> None:
    factor, scale = config.downscale_factor, config.sr_scale
    if factor is not None and factor < 1:
        raise SceneError(f"--downscale-factor must be at least 1, not {factor}")
    if scale < 1:
        raise SceneError(f"--sr-scale must be at least 1, not {scale}")
    if factor is not None and factor % scale:
        raise SceneError(
            f"images that are {factor} times smaller have no ones {scale} times larger beside them: --downscale-factor "
            f"must be a multiple of --sr-scale ({scale})"
        )
    if config.eval_interval < 0 or config.eval_interval == 1:
        raise SceneError(f"--eval-interval must be 0 (none) or at least 2, not {config.eval_interval}")
    for name in ("near", "far"):
        value = getattr(config, name)
        if value is not None and not 0 < value < float("inf"):
            raise SceneError(f"--{name} must be positive, not {value}")


def _cameras(table: PosesBounds, folder: ImageFolder, *, exact: bool) -> Cameras:
    """Cameras (N) for the image files, with the file's poses.

    Args:
        table: what the scene says.
        folder: of images.
        exact: whether sizes must be those that the folder's name says, to a pixel; otherwise any of that shape are.
    """
    files = look_at_all(folder.files)
    if faults := [file.fault for file in files if file.fault]:
        raise SceneError(counted(faults))
    stated = table.sizes.tolist()
    faults = [
        _size_fault(file, row, (width, height), folder)
        for row, (file, (width, height)) in enumerate(zip(files, stated))
        if not _fits((width, height), file, folder.factor if exact else None)
    ]
    faults = faults or _unlike(files, stated)
    if faults:
        raise SceneError(counted(faults))
    actual = torch.tensor([(file.width, file.height) for file in files], dtype=torch.float64)  # (N, 2)
    ratio = actual / table.sizes
    focal = table.focals * ratio
    centre = actual / 2 if table.centres is None else table.centres * ratio
    return Cameras(
        camera_to_worlds=table.poses[:, :3].float(),
        fx=focal[:, :1].float(),
        fy=focal[:, 1:].float(),
        cx=centre[:, :1].float(),
        cy=centre[:, 1:].float(),
        width=actual[:, :1].long(),
        height=actual[:, 1:].long(),
        camera_type=CameraType.PERSPECTIVE,
    )


def _unlike(files: Sequence[ImageFile], stated: Sequence[Sequence[float]]) -> list[str]:
    """Sentences for images of other sizes than those to which the table gives the same one: they may be scaled, or
    cropped, as undistorted ones are, and focal lengths differ."""
    first = {tuple(size): file for size, file in reversed(list(zip(stated, files)))}
    pairs = [(file, first[tuple(size)]) for file, size in zip(files, stated)]
    return [
        f"{file.path} is {file.width} x {file.height} pixels and {other.path.name} {other.width} x {other.height}, but "
        "poses_bounds.npy gives both one size: crop all alike, or state the sizes and focal lengths of their rows"
        for file, other in pairs
        if (file.width, file.height) != (other.width, other.height)
    ]


def _fits(stated: tuple[float, float], file: ImageFile, factor: int | None) -> bool:
    actual = (file.width, file.height)
    if factor is None:
        return fit_size(stated, actual)
    return all(abs(now - then / factor) < 1 for now, then in zip(actual, stated))


def _size_fault(file: ImageFile, row: int, stated: tuple[float, float], folder: ImageFolder) -> str:
    width, height = stated
    factor = folder.factor
    sentence = (
        f"{file.path} is {file.width} pixels wide and {file.height} high, but row {row} of poses_bounds.npy gives "
        f"height {height:g} and width {width:g}"
    )
    if factor > 1:
        sentence += f", of which --downscale-factor {factor} makes {width / factor:g} x {height / factor:g}"
    turned = ImageFile(file.path, width=file.height, height=file.width)
    if _fits(stated, turned, None) and not _fits(stated, file, None):
        if file.orientation != 1:
            return f"{sentence}: it is stored turned (EXIF orientation {file.orientation}): save it upright"
        return f"{sentence}: height and width look swapped, or the image was turned"
    if _fits(stated, file, None):
        return f"{sentence}: {folder.path.name} holds images of another size than its name says"
    return f"{sentence}: they must have one shape"


def _held_out(config: LLFFDataParserConfig, files: Sequence[Path]) -> list[int]:
    """Rows that are not trained on."""
    count = len(files)
    if config.eval_names:
        places = {**{path.stem: row for row, path in enumerate(files)}, **{p.name: row for row, p in enumerate(files)}}
        if missing := [name for name in config.eval_names if name not in places]:
            known = f"{files[0].name} to {files[-1].name}"
            raise SceneError(counted([f"--eval-names names {name}, but the images are {known}" for name in missing]))
        held_out = sorted({places[name] for name in config.eval_names})
    elif config.eval_interval:
        held_out = list(range(0, count, config.eval_interval))
    else:
        return []
    if len(held_out) == count:
        raise SceneError(f"all {count} images are held out of training: name fewer of them (--eval-names)")
    return held_out


def _rows(split: str, count: int, held_out: Sequence[int]) -> list[int]:
    if split == "train" or not held_out:
        rows = [row for row in range(count) if row not in set(held_out)]
        return rows[:1] if split == "val" else rows
    return list(held_out[:1] if split == "val" else held_out)


def _read_frame(path: Path) -> tuple[Tensor, float]:
    if not path.is_file():
        raise SceneError(f"there is no file {path} (--frame): name the dataparser_transforms.json of a run")
    content = read_json(path)
    try:
        transform = torch.tensor(content["transform"], dtype=torch.float64)
        scale = float(content["scale"])
    except (KeyError, TypeError, ValueError):
        transform, scale = torch.zeros(0), 0.0
    if transform.shape != (3, 4) or not 0 < scale < float("inf"):
        raise SceneError(f"{path} (--frame) must hold a 3 x 4 transform and a positive scale, as a run writes them")
    check_pose(transform, f"{path} (--frame)")
    return compose(transform[:, :3], transform[:, 3]), scale


llff_spec = DataParserSpecification(
    config=LLFFDataParserConfig(), description="LLFF folders: poses_bounds.npy, images, images_4"
)
