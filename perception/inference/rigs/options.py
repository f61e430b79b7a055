"""What the user chooses of a folder of rigs."""

from __future__ import annotations

from dataclasses import dataclass

from perception.datasets.driving.infos import CAMERAS


@dataclass(frozen=True)
class Choice:
    """What to run.

    Attributes:
        version: of nuScenes' tables; None: the one that there is.
        split: of nuScenes; None: all scenes.
        scenes: names; none means all.
        cameras: for each of the model's slots, the rig's name of its camera.
        given: the cameras were named by the user, who may leave others aside.
    """

    version: str | None = None
    split: str | None = None
    scenes: tuple[str, ...] = ()
    cameras: tuple[str, ...] = CAMERAS
    given: bool = False
