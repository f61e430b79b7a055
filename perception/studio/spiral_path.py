"""The command `spiral-path`: a path in front of a forward-facing scene, for `ns-render camera-path`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from perception.engine.errors import UserError, run_cli
from perception.geometry.poses import spiral_poses
from perception.geometry.se3 import compose
from perception.studio.camera_checks import check_forward_facing
from perception.studio.camera_paths import write_camera_path
from perception.studio.errors import SceneError
from perception.studio.llff_dataparser import LLFFDataParserConfig, LLFFViews
from perception.studio.parsers import read_by


@dataclass
class SpiralPath:
    """Write the path of NeRF's LLFF videos: a spiral around the average camera, whose cameras all look at one point.

    Name the data parser at the end, with the options of the run that is rendered: spiral-path --data SCENE llff-data
    --downscale-factor 4. Then: ns-render camera-path --load-config CONFIG --camera-path-filename spiral.json.
    """

    data: Path
    """Folder of the scene."""
    out: Path = Path("spiral.json")
    """File to write."""
    views: int = 120
    """Number of pictures."""
    turns: int = 1
    """Rounds of the spiral."""
    seconds: float = 4.0
    """Length of the video."""
    enlarge: int = 1
    """How many times larger than the scene's images the pictures are, as of a method for super-resolution."""
    dataparser: AnnotatedDataParserUnion = field(default_factory=LLFFDataParserConfig)
    """Data parser that reads the scene; `llff-data`."""


def main() -> None:
    """Entry point of the console script."""
    run_cli(lambda: make(tyro.cli(SpiralPath)))


def make(settings: SpiralPath) -> int:
    """Write the path. Returns the exit status.

    Raises:
        UserError: the scene is in another layout or cameras surround it, or a setting is impossible.
    """
    for name in ("views", "turns", "seconds", "enlarge"):
        if getattr(settings, name) <= 0:
            raise UserError(f"--{name} must be positive, not {getattr(settings, name)}")
    outputs = read_by(replace(settings.dataparser, data=settings.data)).setup().get_dataparser_outputs("train")
    cameras = spiral_cameras(outputs, settings.views, settings.turns)
    cameras.rescale_output_resolution(settings.enlarge)
    write_camera_path(settings.out, cameras, settings.seconds)
    print(f"{settings.out}: {settings.views} cameras of {int(cameras.width[0])} x {int(cameras.height[0])} pixels")
    return 0


def spiral_cameras(outputs: DataparserOutputs, views: int = 120, turns: int = 1) -> Cameras:
    """Cameras (views) on the spiral of a forward-facing scene, with the intrinsics of its first training view.

    Args:
        outputs: of `llff-data`, of any split.
        views: number of cameras.
        turns: rounds around the axis.

    Raises:
        SceneError: another data parser read the scene, or its cameras do not look one way.
    """
    scene: LLFFViews | None = outputs.metadata.get("llff")
    if scene is None:
        raise SceneError("a spiral goes by the depth bounds that `llff-data` reads: name it at the end of the command")
    check_forward_facing([outputs])
    rotation, place = scene.poses[:, :, :3].double(), scene.poses[:, :, 3].double()
    near, far = outputs.metadata["near"], outputs.metadata["far"]
    first, poses = outputs.cameras, compose(rotation, place)
    return Cameras(
        camera_to_worlds=spiral_poses(poses, near, far, views=views, turns=turns)[:, :3].float(),
        fx=first.fx[:1],
        fy=first.fy[:1],
        cx=first.cx[:1],
        cy=first.cy[:1],
        width=first.width[:1],
        height=first.height[:1],
        camera_type=first.camera_type[:1],
    )


if __name__ == "__main__":
    main()
