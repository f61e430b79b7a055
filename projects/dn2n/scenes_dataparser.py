"""Several scenes read as one: their views one after another, each scene by the parser whose files lie in its folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from nerfstudio.utils.colors import get_color

from perception.studio.errors import SceneError
from perception.studio.parsers import SceneReader, known_layout
from perception.studio.transforms import check_folder


@dataclass
class ScenesDataParserConfig(DataParserConfig):
    """Reads one scene, or each scene in a folder of scenes, by the files that lie there."""

    _target: type = field(default_factory=lambda: Scenes)
    data: Path = Path("data/demo/scenes/train")
    """Folder of a scene, or of scenes."""
    scenes: tuple[str, ...] = ()
    """Names of the scenes in the folder that are read; by default all."""
    alpha_color: str = "white"
    """Background that transparent images are put on."""


@dataclass
class Scenes(DataParser):
    """Views of several scenes. ``cameras.metadata["scene"]`` (N, 1) says which scene a view is of, and
    ``metadata["scenes"]`` names them with their numbers of views.

    Every scene stays in its own frame. ``readers`` holds the scenes' own readers by name.
    """

    config: ScenesDataParserConfig

    def __init__(self, config: ScenesDataParserConfig):
        super().__init__(config)
        from perception.studio.scene import parser_config  # finds the parsers of all packages

        self.readers: dict[str, SceneReader] = {}
        for folder in scene_folders(Path(config.data), config.scenes):
            found = parser_config(folder)
            if hasattr(found, "alpha_color"):
                found.alpha_color = config.alpha_color
            self.readers[folder.name] = SceneReader(found)

    def _generate_dataparser_outputs(self, split: str = "train") -> DataparserOutputs:
        parts = {name: reader.get_dataparser_outputs(split) for name, reader in self.readers.items()}
        boxes = torch.stack([part.scene_box.aabb.float() for part in parts.values()])
        masks = [part.mask_filenames for part in parts.values()]
        if any(masks):
            raise SceneError(
                f"scenes with masks are read one at a time: name their parser, not {self.config.data} with scenes-data"
            )
        return DataparserOutputs(
            image_filenames=[path for part in parts.values() for path in part.image_filenames],
            cameras=_joined([part.cameras for part in parts.values()]),
            alpha_color=get_color(self.config.alpha_color),
            scene_box=SceneBox(aabb=torch.stack([boxes[:, 0].amin(0), boxes[:, 1].amax(0)])),
            metadata={"scenes": [(name, len(part.image_filenames)) for name, part in parts.items()]},
        )


def scene_folders(folder: Path, names: tuple[str, ...] = ()) -> list[Path]:
    """The folder itself if it is a scene, else the scenes in it, by name.

    Raises:
        SceneError: there are none, or not those that are named.
    """
    check_folder(folder)
    if known_layout(folder) is not None and not names:
        return [folder]
    found = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and known_layout(path) is not None}
    missing = [name for name in names if name not in found]
    if missing:
        raise SceneError(f"{folder} holds no scene {', '.join(missing)}, but {', '.join(found) or 'none'}")
    if not found:
        raise SceneError(f"{folder} is no scene whose layout is known by its files, and holds none")
    return [found[name] for name in names] if names else list(found.values())


def _joined(parts: list[Cameras]) -> Cameras:
    def together(name: str) -> torch.Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    lenses = [part.distortion_params for part in parts]
    distorted = None
    if any(lens is not None for lens in lenses):
        distorted = torch.cat(
            [torch.zeros(len(p), 6) if p.distortion_params is None else p.distortion_params for p in parts]
        )
    return Cameras(
        camera_to_worlds=together("camera_to_worlds").float(),
        **{name: together(name).float() for name in ("fx", "fy", "cx", "cy")},
        **{name: together(name) for name in ("width", "height", "camera_type")},
        distortion_params=distorted,
        metadata={"scene": torch.cat([torch.full((len(part), 1), n) for n, part in enumerate(parts)])},
    )


scenes_spec = DataParserSpecification(
    config=ScenesDataParserConfig(), description="One scene, or all scenes of a folder, by the files that lie there"
)
