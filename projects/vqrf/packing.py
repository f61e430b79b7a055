"""From a nerfstudio run on disk to a `.vqrf` file."""

from __future__ import annotations

from pathlib import Path

import torch
from nerfstudio.data.scene_box import SceneBox

from perception.engine.errors import UserError
from perception.studio.checkpoints import latest_checkpoint, load_training_checkpoint, read_run
from perception.studio.scene import describe_parser
from projects.vqrf.file_format import container
from projects.vqrf.model import COMPRESSION, GROUPS, VqrfModel


def pack_checkpoint(config_path: Path, out: Path) -> Path:
    """Write the field of a run's latest checkpoint; the scene's images are not needed.

    Args:
        config_path: the run's `config.yml`.
        out: file to write.

    Raises:
        UserError: this is not a run of vqrf, it has no checkpoint, or it has not reached its last stage.
    """
    model = load_model(config_path)
    if int(model.stage) < COMPRESSION:
        raise UserError(
            f"the run has not reached the compression stage, which begins at step {model.schedule.stages[-1].start}: "
            "continue it with --load-dir"
        )
    container.write(out, model.packed())
    return out


def load_model(config_path: Path) -> VqrfModel:
    """The model of a run's latest checkpoint, on the CPU.

    Raises:
        UserError: this is not a run of vqrf, or it has no checkpoint.
    """
    config = read_run(config_path)
    if not issubclass(config.pipeline.model._target, VqrfModel):
        raise UserError(f"{config_path} is of the method {config.method_name}, not of vqrf")
    path = latest_checkpoint(config_path.parent / config.relative_model_dir)
    state = load_training_checkpoint(path, set(GROUPS))["pipeline"]
    box = SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3]))
    model = config.pipeline.model.setup(scene_box=box, num_train_data=0, metadata={}, device="cpu", grad_scaler=None)
    prefix = "_model."
    model.load_state_dict({name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)})
    manager = config.pipeline.datamanager
    model.dataparser = describe_parser(manager.dataparser, manager.data or manager.dataparser.data)
    return model.eval()
