"""Finds the frames of rigs in folders and reads their images. Worker processes import this module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.datasets.images import UnreadableImageError, read_image
from perception.engine.errors import UserError
from perception.inference.reading import Refused
from perception.inference.scan import Scan, Source

from .frames import RigCamera
from .nuscenes_folder import scan_nuscenes, versions_of
from .options import Choice
from .rig_folder import RIG, scan_rig_folder


@dataclass(frozen=True)
class RigFrame:
    """What the cameras of a frame saw.

    Attributes:
        images: (H, W, 3) uint8 RGB, in the order of the model's slots.
        note: see :class:`.frames.RigDetails`.
    """

    images: tuple[np.ndarray, ...]
    note: str


class RigReader:
    """Each frame is a source, and each scene a sequence.

    Args:
        choice: what to run.
    """

    def __init__(self, choice: Choice) -> None:
        self._choice = choice

    def scan(self, folder: Path, patterns: Sequence[str], exclude: Path) -> Scan:
        folder = Path(folder)
        if (folder / RIG).is_file():
            return scan_rig_folder(folder, self._choice, patterns, exclude)
        if versions_of(folder):
            return scan_nuscenes(folder, self._choice, patterns)
        raise UserError(
            f"{folder} is no folder of a rig: neither {RIG} is there, nor tables of nuScenes in a folder v1.0-*"
        )

    def read(self, source: Source, alone: bool) -> RigFrame | Refused:
        images = []
        for camera in source.details.cameras:
            image = _read(camera)
            if isinstance(image, Refused):
                return image
            images.append(image)
        return RigFrame(tuple(images), source.details.note)

    def nbytes(self, sample: RigFrame) -> int:
        return sum(image.nbytes for image in sample.images)


def _read(camera: RigCamera) -> np.ndarray | Refused:
    try:
        image = read_image(camera.path)
    except UnreadableImageError as error:
        return Refused(f"{camera.name}: {error}")
    except OSError as error:
        return Refused(f"{camera.name} cannot be read ({error.strerror})")
    except MemoryError:
        return Refused(f"{camera.name} does not fit into memory")
    height, width = image.shape[:2]
    if (width, height) != (camera.width, camera.height):
        return Refused(
            f"{camera.name} is {width} x {height}, but its calibration is for {camera.width} x {camera.height}: "
            "resized images need other intrinsics"
        )
    if not image.any():
        return Refused(f"{camera.name} is black, every pixel of it")
    return image
