"""What a training needs to know of a nuScenes split, in one file.

The file is msgpack of the structs below, without pickle. Its frames are sorted by time.
`tools/dataset_converters/nuscenes.py` makes it from the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from perception.engine.atomic import replacing
from perception.engine.errors import UserError

FORMAT, VERSION = "perception nuscenes infos", 1
_CONVERTER = "tools/dataset_converters/nuscenes.py"

CLASSES = (
    *("barrier", "bicycle", "bus", "car", "construction_vehicle"),
    *("motorcycle", "pedestrian", "traffic_cone", "trailer", "truck"),
)
"""nuScenes' detection classes in the order of BEVFormer's labels."""

CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
"""In the order of BEVFormer's learned vectors for cameras."""

Matrix = list[list[float]]


class PerspectiveObject(msgspec.Struct):
    """An object as one camera sees it: a target of perspective supervision.

    Attributes:
        name: detection class.
        box: x1, y1, x2, y2 around its eight projected corners, cut at the image's borders, in pixels of the file.
        rotation: quaternion (w, x, y, z) from the object's frame (x forward, y left, z up) to the camera's.
        translation: of its centre in the camera's frame, metres.
        size: width, length, height in metres.
        attribute: 0 to 2, or 3 where there is none; see `nuscenes_tables.ATTRIBUTE_NUMBERS`.
        speed: in m/s, NaN where unknown.
    """

    name: str
    box: list[float]
    rotation: list[float]
    translation: list[float]
    size: list[float]
    attribute: int
    speed: float


class Camera(msgspec.Struct):
    """An image of a frame.

    Attributes:
        path: relative to the data set's root.
        token: of its sample_data.
        timestamp: microseconds.
        width, height: in pixels.
        intrinsics: 3 x 3 in pixels.
        lidar_from_camera: 4 x 4 from the camera's frame (OpenCV axes) when the image was taken to the LiDAR's frame
            when its turn ended, through both of the vehicle's poses.
        objects: targets of perspective supervision.
    """

    path: str
    token: str
    timestamp: int
    width: int
    height: int
    intrinsics: Matrix
    lidar_from_camera: Matrix
    objects: list[PerspectiveObject]


class Objects(msgspec.Struct):
    """The annotated objects of a frame, column by column.

    Attributes:
        boxes: (N, 9) x, y, z of the centre, length, width, height, yaw, vx, vy in the LiDAR's frame; velocities are of
            the object over the ground, NaN where unknown.
        names: detection classes; nuScenes' categories for objects of no class.
        attributes: nuScenes' names, "" for none.
        instances: tokens.
        lidar_points, radar_points: numbers of points.
        visibility: 1 (up to 40 %) to 4 (from 80 %).
    """

    boxes: Matrix
    names: list[str]
    attributes: list[str]
    instances: list[str]
    lidar_points: list[int]
    radar_points: list[int]
    visibility: list[int]


class Frame(msgspec.Struct):
    """A key frame.

    Attributes:
        token: of its sample.
        scene, scene_token: the scene's name and token.
        timestamp: of the LiDAR's turn, microseconds.
        lidar_path: relative to the data set's root.
        ego_from_lidar: 4 x 4.
        global_from_ego: 4 x 4 at the time of the LiDAR.
        cameras: by channel.
        objects: without any in the test split.
    """

    token: str
    scene: str
    scene_token: str
    timestamp: int
    lidar_path: str
    ego_from_lidar: Matrix
    global_from_ego: Matrix
    cameras: dict[str, Camera]
    objects: Objects


class Infos(msgspec.Struct):
    """A split. Frames are encoded, one by one; see :func:`decode_frame`."""

    format: str
    format_version: int
    version: str  # of the data set: the folder of its tables
    split: str
    frames: list[msgspec.Raw]


def write_infos(path: str | Path, version: str, split: str, frames: Sequence[Frame]) -> None:
    """Write a split, sorted by time; the file is whole or not there."""
    encoder = msgspec.msgpack.Encoder()
    ordered = sorted(frames, key=lambda frame: frame.timestamp)
    infos = Infos(FORMAT, VERSION, version, split, [msgspec.Raw(encoder.encode(frame)) for frame in ordered])
    with replacing(path) as file:
        file.write(encoder.encode(infos))


def read_infos(path: str | Path) -> Infos:
    """Read a split.

    Raises:
        UserError: the file is missing or no such file.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing; make it with: python {_CONVERTER} {path.parent} --version VERSION"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    try:
        infos = msgspec.msgpack.decode(data, type=Infos)
    except msgspec.MsgspecError:
        raise UserError(f"{path} is not an info file of {_CONVERTER}") from None
    if infos.format != FORMAT or infos.format_version != VERSION:
        raise UserError(f"{path} was made by another version of {_CONVERTER}; make it again with --overwrite")
    return infos


_DECODER = msgspec.msgpack.Decoder(Frame)


def decode_frame(raw: bytes | msgspec.Raw) -> Frame:
    """One of the frames of :class:`Infos`."""
    return _DECODER.decode(raw)


def box_array(objects: Objects) -> np.ndarray:
    """(N, 9) float64, also for no objects."""
    return np.array(objects.boxes, np.float64).reshape(-1, 9)
