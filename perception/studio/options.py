"""Options that nerfstudio's settings bring along and a method here does not honour: refused instead of ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig, variable_res_collate
from nerfstudio.data.utils.nerfstudio_collate import nerfstudio_collate
from nerfstudio.models.base_model import ModelConfig

from perception.studio.errors import SceneError
from perception.studio.samplers import RandomSamplerConfig

if TYPE_CHECKING:
    from perception.studio.trainer import StudioTrainerConfig

ON_CPU = "images are kept on the CPU as 8-bit numbers"
SAMPLED = "the method chooses pixels by a sampler of its own (--pipeline.datamanager.sampler, where it has options)"
ALL_IMAGES = "every step draws from all training images"
WHOLE_IMAGES = "evaluation goes through all images"
OWN_RANGE = "the method bounds rays by --pipeline.model.near and --pipeline.model.far"

IGNORED: Mapping[str, str] = {
    "pipeline.datamanager.masks_on_gpu": ON_CPU,
    "pipeline.datamanager.images_on_gpu": ON_CPU,
    "pipeline.datamanager.train_num_images_to_sample_from": ALL_IMAGES,
    "pipeline.datamanager.train_num_times_to_repeat_images": ALL_IMAGES,
    "pipeline.datamanager.eval_num_images_to_sample_from": WHOLE_IMAGES,
    "pipeline.datamanager.eval_num_times_to_repeat_images": WHOLE_IMAGES,
    "pipeline.datamanager.eval_image_indices": WHOLE_IMAGES,
    "pipeline.datamanager.collate_fn": "images are not gathered into batches",
    "pipeline.datamanager.patch_size": SAMPLED,
    "pipeline.datamanager.pixel_sampler": SAMPLED,
    "pipeline.datamanager.camera_optimizer": "poses are taken as they are",
    "pipeline.model.enable_collider": OWN_RANGE,
    "pipeline.model.collider_params": OWN_RANGE,
    "pipeline.model.loss_coefficients": "the method's losses have weights of their own",
    "pipeline.model.prompt": "the method knows no prompts",
    "prompt": "the method knows no prompts",
    "mixed_precision": "the method computes in single precision",
    "machine.num_devices": "the method trains on one device",
    "machine.num_machines": "the method trains on one device",
    "machine.machine_rank": "the method trains on one device",
    "machine.dist_url": "the method trains on one device",
}
"""Option and what is so instead. A method that honours one names it in its model's settings (``honoured``)."""

DEFAULTS: Mapping[str, Any] = {
    "prompt": None,
    "mixed_precision": False,
    "machine.num_devices": 1,
    "machine.num_machines": 1,
    "machine.machine_rank": 0,
    "machine.dist_url": "auto",
    "pipeline.model.enable_collider": False,  # where nerfstudio's own default is True
    "pipeline.datamanager.sampler": RandomSamplerConfig(),
}


def check_options(config: StudioTrainerConfig) -> None:
    """Raise where an option is set that would have no effect, or ends every run.

    Raises:
        SceneError: the message names it, and what is so instead.
    """
    model = config.pipeline.model
    for name, instead in {**IGNORED, **model.refused}.items():
        if name not in model.honoured and _plain(_value(config, name)) != _plain(_default(name)):
            value = _value(config, name)
            shown = f" {value}" if isinstance(value, (bool, int, float, str)) else ""
            raise SceneError(f"--{name.replace('_', '-')}{shown} has no effect with {config.method_name}: {instead}")
    if not 0 <= config.machine.seed < 2**32:
        raise SceneError(f"--machine.seed must lie between 0 and 4294967295, not {config.machine.seed}")
    if config.start_paused and not (config.is_viewer_enabled() or config.is_viewer_legacy_enabled()):
        raise SceneError(f"--start-paused True would wait for ever: --vis {config.vis} has no viewer to end the pause")
    unknown = config.gradient_accumulation_steps.keys() - config.optimizers.keys()
    if unknown:
        raise SceneError(
            f"--gradient-accumulation-steps names {', '.join(sorted(unknown))}, but {config.method_name} trains "
            f"{', '.join(sorted(config.optimizers))}"
        )


def _value(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = config[part] if isinstance(config, Mapping) else getattr(config, part)
    return config


def _default(name: str) -> Any:
    """What an option is when nobody sets it."""
    if name in DEFAULTS:
        return DEFAULTS[name]
    group, _, option = name.rpartition(".")
    if group == "pipeline.datamanager":
        return nerfstudio_collate if option == "collate_fn" else getattr(VanillaDataManagerConfig(), option)
    return getattr(ModelConfig(), option) if group == "pipeline.model" else False


def _plain(value: Any) -> Any:
    """In a form that compares: nerfstudio freezes dictionaries, wraps functions, and sets another collation itself."""
    if isinstance(value, Mapping):
        return dict(value)
    value = getattr(value, "__func__", value)
    return nerfstudio_collate if value is variable_res_collate else value
