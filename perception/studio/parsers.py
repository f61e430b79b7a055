"""Reading a scene through a data parser of nerfstudio or of this suite, whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from nerfstudio.data.dataparsers.instant_ngp_dataparser import InstantNGPDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

from perception.studio.blender_dataparser import StatedBlender
from perception.studio.colmap_dataparser import StatedColmap
from perception.studio.errors import SceneError
from perception.studio.instant_ngp_dataparser import StatedInstantNGP
from perception.studio.llff_dataparser import LLFFDataParserConfig
from perception.studio.nerfstudio_dataparser import StatedNerfstudio
from perception.studio.nsvf_dataparser import NSVFDataParserConfig
from perception.studio.tensoir_dataparser import TensoIRDataParserConfig
from perception.studio.transforms import check_folder
from perception.studio.video_dataparser import MultiviewVideoDataParserConfig

STATED: dict[type[DataParserConfig], type[DataParser]] = {
    BlenderDataParserConfig: StatedBlender,
    NerfstudioDataParserConfig: StatedNerfstudio,
    InstantNGPDataParserConfig: StatedInstantNGP,
    ColmapDataParserConfig: StatedColmap,
}
"""What reads a scene instead of nerfstudio's parser with the same settings: it uses or refuses what files state."""

LAYOUTS = {
    "blender-data": ("transforms_train.json",),
    "nerfstudio-data": ("transforms.json",),
    "nsvf-data": ("intrinsics.txt", "pose", "rgb"),
    "tensoir-data": ("train_000/metadata.json",),
    "llff-data": ("poses_bounds.npy",),  # released scenes hold a COLMAP model as well
    "colmap": ("colmap",),
    "colmap --colmap-path sparse/0": ("sparse/0",),
}
"""What to add to a command line, and the files by which a layout is recognised."""

CONFIGS: dict[type[DataParserConfig], str] = {
    BlenderDataParserConfig: "blender-data",
    NerfstudioDataParserConfig: "nerfstudio-data",
    InstantNGPDataParserConfig: "instant-ngp-data",
    NSVFDataParserConfig: "nsvf-data",
    LLFFDataParserConfig: "llff-data",
    TensoIRDataParserConfig: "tensoir-data",
    ColmapDataParserConfig: "colmap",
    MultiviewVideoDataParserConfig: "multiview-video-data",
}
"""Names of data parsers on the command line."""


class SceneReader(DataParser):
    """Reads each split once, and turns whatever a data parser fails with into one sentence.

    Args:
        config: settings of any data parser; the one in ``STATED`` reads the scene where there is one.
    """

    def __init__(self, config: DataParserConfig):
        super().__init__(config)
        kind = STATED.get(type(config)) or type(config)()._target
        check_layout(config)
        with _one_sentence(config):
            self.parser = kind(config)
        self.includes_time = self.parser.includes_time
        self._read: dict[str, DataparserOutputs] = {}

    @property
    def downscale_factor(self) -> int | None:
        """The factor by which images are smaller; nerfstudio sets it to 1 where images are not read."""
        return getattr(self.parser, "downscale_factor", None)

    @downscale_factor.setter
    def downscale_factor(self, factor: int) -> None:
        self.parser.downscale_factor = factor

    def get_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        """Images and cameras of a split; the cameras are a batch also where there is one.

        Raises:
            SceneError: the scene cannot be read, or the split is empty.
        """
        if split not in self._read:
            self._read[split] = self._outputs(split, **kwargs)
        return self._read[split]

    def _outputs(self, split: str, **kwargs) -> DataparserOutputs:
        with _one_sentence(self.config):
            outputs = self.parser.get_dataparser_outputs(split=split, **kwargs)
        if not len(outputs.image_filenames):
            raise SceneError(_empty(self.config, split))
        outputs.cameras = as_batch(outputs.cameras)
        return outputs


def read_by(config: DataParserConfig, reader: type[SceneReader] = SceneReader) -> DataParserConfig:
    """A copy of a data parser's settings whose `setup()` makes a :class:`SceneReader`, or one of a subclass."""
    return replace(config, _target=reader)


def as_batch(cameras: Cameras) -> Cameras:
    """Cameras (N), also of a single one without a batch axis."""
    return cameras if len(cameras.shape) == 1 else cameras.reshape((-1,))


def known_layout(folder: Path) -> str | None:
    """The data parser (with options) whose files lie in ``folder``, or that reads it if it is a file."""
    if folder.suffix == ".json":
        return "nerfstudio-data"
    for parser, names in LAYOUTS.items():
        if all((folder / name).exists() for name in names):
            return parser
    return None


def check_layout(config: DataParserConfig) -> None:
    """Raise where the scene's folder is missing, or has the files of another layout instead of the parser's own.

    Raises:
        SceneError: so it is.
    """
    folder = Path(config.data)
    check_folder(folder)
    own = LAYOUTS.get(CONFIGS.get(type(config), ""), ())
    if isinstance(config, ColmapDataParserConfig):
        own = (config.colmap_path,)
    by_file = isinstance(config, (NerfstudioDataParserConfig, InstantNGPDataParserConfig))
    if by_file:
        own = LAYOUTS["nerfstudio-data"]
    if own and folder.is_file() and not (by_file and folder.suffix == ".json"):
        other = layout_hint(config).replace(":", ", or", 1)
        name = CONFIGS[type(config)]
        raise SceneError(f"{folder} is a file, but {name} reads a folder: pass {folder.parent}{other}")
    missing = [name for name in own if not (folder / name).exists()]
    if missing and (hint := layout_hint(config)):
        raise SceneError(f"{folder} has no {missing[0]}{hint}")


def layout_hint(config: DataParserConfig) -> str:
    """Which other parser reads the folder, to be added to a sentence; empty where it is the one in use."""
    layout, used = known_layout(Path(config.data)), CONFIGS.get(type(config))
    if layout is None or layout.split()[0] == used or {layout, used} == {"nerfstudio-data", "instant-ngp-data"}:
        return ""
    return f": add `{layout}` at the end of the command to read it"


@contextmanager
def _one_sentence(config: DataParserConfig) -> Iterator[None]:
    try:
        yield
    except SceneError:
        raise
    # A parser takes what files hold for granted: what else they hold ends it in any way at all.
    except (Exception, SystemExit) as error:
        raise SceneError(unreadable(config, error)) from error


def unreadable(config: DataParserConfig, error: BaseException) -> str:
    """The sentence for what a data parser failed with."""
    name = CONFIGS.get(type(config), type(config).__name__.removesuffix("Config"))
    if isinstance(error, EOFError):
        reason = "it asks a question, and nobody is there to answer"
    elif isinstance(error, KeyError):
        reason = f"it looks for {error} and does not find it"
    elif isinstance(error, SystemExit):
        reason = "it gave up"
    else:
        reason = " ".join(str(error).split()) or type(error).__name__
    return f"cannot read {config.data} with {name}: {reason}{layout_hint(config)}"


def _empty(config: DataParserConfig, split: str) -> str:
    sentence = f"the {split} split of {config.data} has no images"
    if hasattr(config, "eval_mode"):
        name = CONFIGS.get(type(config), type(config).__name__)
        sentence += f": choose another --eval-mode (now {config.eval_mode}) after `{name}`"
    return sentence
