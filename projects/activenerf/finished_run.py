"""A run on disk: its model and its views, without its images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

from perception.engine.errors import UserError
from perception.studio.checkpoints import latest_checkpoint, load_training_checkpoint, read_run
from perception.studio.transforms import read_json, read_transforms
from projects.activenerf.model import ActiveNerfModel


@dataclass(frozen=True)
class FinishedRun:
    """What is known of a run without its images."""

    model: ActiveNerfModel
    names: list[str]
    """(N) of the training images."""
    cameras: Cameras
    """(N) of these, in the frame of the run."""
    rotation: Tensor
    """(3, 3) from the frame of the scene's files to that of the run, with ``translation`` and then ``scale``."""
    translation: Tensor
    scale: float

    @property
    def active(self) -> list[int]:
        """Views that it was trained on."""
        return self.model.pools.active

    def to_run(self, poses: Tensor) -> Tensor:
        """Camera-to-world poses (M, 4, 4) of the scene's frame in that of the run: (M, 3, 4) float32."""
        places = (poses[:, :3, 3] @ self.rotation.T + self.translation) * self.scale
        return torch.cat([self.rotation @ poses[:, :3, :3], places[..., None]], -1).float()


def load_run(config_path: Path, device: str | None = None) -> FinishedRun:
    """Read a run of any of the methods here.

    Args:
        config_path: the run's `config.yml`.
        device: by default CUDA where there is one.

    Raises:
        UserError: it is of another method, has no checkpoint, or its frame is not known.
    """
    config = read_run(config_path)
    if not issubclass(config.pipeline.model._target, ActiveNerfModel):
        raise UserError(f"{config_path} is of the method {config.method_name}, not of activenerf")
    path = latest_checkpoint(config_path.parent / config.relative_model_dir)
    state = load_training_checkpoint(path, {"fields"})
    box = SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3]))
    model = config.pipeline.model.setup(scene_box=box, num_train_data=0, metadata={}, device="cpu", grad_scaler=None)
    prefix = "_model."
    model.load_state_dict(
        {name[len(prefix) :]: value for name, value in state["pipeline"].items() if name.startswith(prefix)}
    )
    scene = state["run"]["scene"]
    frame = _frame(config_path, config.pipeline.datamanager, scene)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return FinishedRun(model.to(device).eval(), list(scene["names"]), _cameras(scene), *frame)


def _cameras(scene: dict[str, Any]) -> Cameras:
    fx, fy, cx, cy, width, height = (part[:, None] for part in scene["intrinsics"].unbind(1))
    return Cameras(
        camera_to_worlds=scene["poses"],
        fx=fx,
        fy=fy,
        cx=cx,
        cy=cy,
        width=width.long(),
        height=height.long(),
        camera_type=CameraType.PERSPECTIVE,
    )


def _frame(config_path: Path, manager: Any, scene: dict[str, Any]) -> tuple[Tensor, Tensor, float]:
    """Rotation, translation and scale from the scene's files to the run."""
    if isinstance(manager.dataparser, NerfstudioDataParserConfig):
        return _fitted(manager.data or manager.dataparser.data, scene)
    path = config_path.parent / "dataparser_transforms.json"
    if not path.is_file():
        raise UserError(f"there is no {path}, which a run writes at its start: candidates cannot be placed without it")
    content = read_json(path)
    transform = torch.tensor(content["transform"], dtype=torch.float64)
    return transform[:, :3], transform[:, 3], float(content["scale"])


def _fitted(data: Path, scene: dict[str, Any]) -> tuple[Tensor, Tensor, float]:
    """The same from the poses of the views that the scene's file and the run both have: nerfstudio's parser keeps the
    transform from a frame before that of the file."""
    path = data if data.suffix == ".json" else data / "transforms.json"
    meta, poses = read_transforms(path)
    rows = {Path(frame["file_path"]).name: row for row, frame in enumerate(meta["frames"])}
    pairs = [(rows[name], view) for view, name in enumerate(scene["names"]) if name in rows]
    if len(pairs) < 2:
        raise UserError(f"{path} no longer names the views that the run was trained on: restore it")
    theirs, ours = poses[[row for row, _ in pairs]], scene["poses"][[view for _, view in pairs]].double()
    rotation = ours[0, :, :3] @ theirs[0, :3, :3].T
    spread = [(places - places.mean(0)).norm() for places in (ours[:, :, 3], theirs[:, :3, 3])]
    scale = float(spread[0] / spread[1])
    return rotation, ours[0, :, 3] / scale - rotation @ theirs[0, :3, 3], scale
