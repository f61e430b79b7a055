"""A trained DN2N, or IBRNet's weights, put before a scene that it may never have seen."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import cast

import torch
import yaml
from nerfstudio.cameras.cameras import Cameras

from perception.engine.atomic import replacing
from perception.engine.errors import UserError
from perception.studio.checkpoints import latest_checkpoint, read_run
from perception.studio.errors import SceneError
from projects.dn2n.bank import poses_of
from projects.dn2n.config import dn2n
from projects.dn2n.model import DN2NModel, DN2NModelConfig, pose_vector
from projects.dn2n.pipeline import DN2NPipeline
from projects.dn2n.scenes_dataparser import ScenesDataParserConfig, scene_folders
from projects.dn2n.sources import evaluation_sources


def open_run(config_path: Path | None, weights: Path | None, data: Path, device: str):
    """The settings of a run for another scene, and the step and path of its checkpoint.

    Args:
        config_path: config.yml of a run of a `dn2n` method; or none.
        weights: IBRNet's weights, where there is no run: networks of the published sizes.
        data: folder of the scene.
        device: to work on.

    Raises:
        UserError: it is a run of another method, or the scene cannot be read.
    """
    config = deepcopy(dn2n.config) if config_path is None else read_run(config_path)
    model = config.pipeline.model
    if not isinstance(model, DN2NModelConfig):
        raise SceneError(
            f"{config_path} is a run of {config.method_name}, whose field knows one scene only; editing and rendering "
            "new scenes takes a run of dn2n"
        )
    if weights is not None:
        model.weights = weights
    elif config_path is not None:
        model.weights = None  # the checkpoint has them
    if len(scene_folders(data)) != 1:
        raise SceneError(f"{data} holds several scenes: name one of them")
    config.data = config.pipeline.datamanager.data = data
    config.pipeline.datamanager.dataparser = ScenesDataParserConfig(data=data)
    config.pipeline.edit = None
    config.machine.device_type = torch.device(device).type
    return config


class Trained:
    """A pipeline with trained weights on one scene.

    Args:
        config_path, weights, data, device: see :func:`open_run`.
    """

    def __init__(self, config_path: Path | None, weights: Path | None, data: Path, device: str):
        self.config = open_run(config_path, weights, data, device)
        self.config.pipeline.datamanager.scene_use = self.config.pipeline.model.scene_use()
        self.pipeline = cast(DN2NPipeline, self.config.pipeline.setup(device=device, test_mode="test"))
        if config_path is not None and weights is None:
            from perception.engine.checkpoint import load_checkpoint_file  # imports MMEngine

            state = load_checkpoint_file(latest_checkpoint(self.config.get_checkpoint_dir()))
            self.pipeline.load_pipeline(state["pipeline"], state["step"])
        self.pipeline.eval()
        self.model = cast(DN2NModel, self.pipeline.model)
        self.bank = self.pipeline.bank

    @property
    def names(self) -> list[str]:
        """Of the training images."""
        return [path.name for path in self.pipeline.datamanager.train_dataset.image_filenames]

    def views(self, split: str) -> tuple[Cameras, list[torch.Tensor]]:
        """Cameras and images (H, W, 3) of a split."""
        dataset = self.pipeline.datamanager.split_dataset(split)
        return dataset.cameras, [dataset[number]["image"][..., :3] for number in range(len(dataset))]

    def render(self, cameras: Cameras, number: int) -> dict[str, torch.Tensor]:
        """Outputs (H, W, ...) of one of some cameras, on the CPU."""
        outputs = self.model.get_outputs_for_camera(cameras[number : number + 1])
        return {name: value.cpu() for name, value in outputs.items()}

    def nearest_source(self, cameras: Cameras, number: int) -> int:
        """Number of the original source view that is nearest to a camera, but not the same."""
        pose = poses_of(pose_vector(cameras.camera_to_worlds[number])[None])[0]
        return int(evaluation_sources(pose, self.bank.poses, 1)[0])

    def write_config(self, folder: Path) -> Path:
        """A config.yml in `folder` with which nerfstudio's commands show an edit of the scene."""
        config = deepcopy(self.config)
        config.data = config.pipeline.datamanager.data = Path(config.data).absolute()
        config.pipeline.datamanager.dataparser.data = config.data
        config.output_dir = Path(config.output_dir).absolute()
        config.pipeline.edit = folder.absolute()
        path = folder / "config.yml"
        with replacing(path) as file:
            file.write(yaml.dump(config).encode())
        return path


def require_one(config_path: Path | None, weights: Path | None) -> None:
    """Raise unless a run or weights are named.

    Raises:
        UserError: none is.
    """
    if config_path is None and weights is None:
        raise UserError("name a trained run with --load-config RUN/config.yml, or IBRNet's weights with --weights")
