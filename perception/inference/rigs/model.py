"""What a model is that finds objects around a rig of cameras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from mmengine.structures import BaseDataElement, InstanceData


class RigDetector(Protocol):
    """A model, as a folder run needs it: what a frame shows is computed once, and kept for the frames that follow.

    Attributes:
        frames: offsets of the frames that it looks at, 0 among them.
        num_cams: how many cameras it has places for.
    """

    frames: tuple[int, ...]
    num_cams: int

    def look(self, batch: dict[str, Any]) -> Any:
        """What one frame shows, from what the test pipeline and the collate function gave of it."""

    def detect(self, seen: Mapping[int, tuple[Any, BaseDataElement]]) -> InstanceData:
        """Objects of the frame with the offset 0: ``bboxes_3d`` (n, 9) in its LiDAR's frame, ``scores``, ``labels``.

        Args:
            seen: by offset, what :meth:`look` gave of a frame, and its data sample, whose ``lidar2img`` lead from the
                LiDAR's frame of offset 0. Some may be missing, 0 is there.
        """
