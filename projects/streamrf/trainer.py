"""nerfstudio's trainer and pipeline for videos: the number of frames is the data's, checkpoints lie between frames."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils.rich_utils import CONSOLE

from perception.studio.errors import SceneError, one_sentence
from perception.studio.trainer import StudioTrainer, StudioTrainerConfig
from projects.streamrf.datamanager import video_of
from projects.streamrf.model import LOG, STREAM


@dataclass
class StreamPipelineConfig(VanillaPipelineConfig):
    """Data and model of a video."""

    _target: type = field(default_factory=lambda: StreamPipeline)
    stream: Path | None = None
    """Folder of the stream whose frames the viewer shows after training; by default the run's own."""


class StreamPipeline(VanillaPipeline):
    """Evaluates the frame that a loaded field is of. After training ``frame_slider`` shows others."""

    config: StreamPipelineConfig

    def load_pipeline(self, loaded_state: Mapping, step: int) -> None:
        super().load_pipeline(loaded_state, step)
        self.datamanager.show_frame(int(self.model.frame))
        folder = self.config.stream
        if self.test_mode == "val" or folder is None:
            return
        if not folder.is_dir():
            CONSOLE.log(f"{folder} is missing: the viewer shows frame {int(self.model.frame)} alone")
            return
        from projects.streamrf.viewing import FrameSlider  # imports the viewer

        with one_sentence():
            self.frame_slider = FrameSlider(self.model, folder)


@dataclass
class StreamTrainerConfig(StudioTrainerConfig):
    """Settings of a run on a video."""

    _target: type = field(default_factory=lambda: StreamTrainer)

    def save_config(self) -> None:
        """Write config.yml, with the number of frames that the run will train."""
        with one_sentence():
            self.settle_frames()
        super().save_config()

    def get_checkpoint_dir(self) -> Path:
        """The folder of the run's checkpoints; nerfstudio's commands ask for it before they build the pipeline, which
        learns here where the run's stream is."""
        if self.pipeline.stream is None:
            self.pipeline.stream = self.get_base_dir() / STREAM
        return super().get_checkpoint_dir()

    def settle_frames(self) -> None:
        """Find out how many frames there are, if the settings do not say.

        Raises:
            SceneError: there are fewer than they say, or the data cannot be read.
        """
        manager, model = self.pipeline.datamanager, self.pipeline.model
        if self.data is not None:
            manager.dataparser.data = self.data
        video = video_of(manager.dataparser.setup().get_dataparser_outputs("train").metadata)
        if model.frames > video.frames:
            raise SceneError(f"--pipeline.model.frames {model.frames}: the video has {video.frames}")
        model.frames = model.frames or video.frames


class StreamTrainer(StudioTrainer):
    """Leaves out checkpoints in the middle of a later frame: a run that is killed there trains that frame again. A run
    that goes on from another one's checkpoint takes over that one's stream."""

    def save_checkpoint(self, step: int) -> None:
        if self.pipeline.model.may_save():
            super().save_checkpoint(step)

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self._resumed_from is None:
            return
        before, here = self._resumed_from.parent.parent, self.base_dir
        if before.resolve() == here.resolve():
            return
        if (before / STREAM).is_dir():
            shutil.copytree(before / STREAM, here / STREAM, dirs_exist_ok=True)
        if (before / LOG).is_file():
            shutil.copy(before / LOG, here / LOG)
