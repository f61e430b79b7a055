"""The methods `streamrf`, `streamrf-n3dv` and `streamrf-tiny` of nerfstudio's command lines."""

from __future__ import annotations

from dataclasses import replace

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.plugins.types import MethodSpecification

from perception.studio.optimizers import MaskedRMSpropConfig
from perception.studio.video_dataparser import MultiviewVideoDataParserConfig
from projects.streamrf.datamanager import StreamDataManagerConfig
from projects.streamrf.model import PILOT, StreamRFModelConfig
from projects.streamrf.settings import BaseSettings, FrameSettings
from projects.streamrf.trainer import StreamPipelineConfig, StreamTrainerConfig

GROUPS = ("density", "sh", "pilot_density", "pilot_sh")


def _method(
    name: str, description: str, model: StreamRFModelConfig, *, downscale_factor: int = 1, steps_per_save: int = 1000
) -> MethodSpecification:
    """A method of this name; the rates of optimisers are set by the stages."""
    manager = StreamDataManagerConfig(
        dataparser=MultiviewVideoDataParserConfig(downscale_factor=downscale_factor),
        train_num_rays_per_batch=model.base.rays,
        eval_num_rays_per_batch=8192,
    )
    config = StreamTrainerConfig(
        method_name=name,
        steps_per_save=steps_per_save,
        steps_per_eval_batch=0,
        steps_per_eval_image=1_000_000_000,
        steps_per_eval_all_images=1_000_000_000,
        mixed_precision=False,
        pipeline=StreamPipelineConfig(datamanager=manager, model=model),
        optimizers={group: {"optimizer": MaskedRMSpropConfig(), "scheduler": None} for group in GROUPS},
        viewer=ViewerConfig(num_rays_per_chunk=8192, quit_on_train_completion=True),
        vis="tensorboard",
    )
    return MethodSpecification(config=config, description=description)


streamrf = _method(
    "streamrf",
    "StreamRF: a video of several cameras as a radiance field and its differences; the recipe of Meet Room",
    StreamRFModelConfig(),
)

streamrf_n3dv = _method(
    "streamrf-n3dv",
    "StreamRF with the recipe of Neural 3D Video, at half resolution",
    StreamRFModelConfig(
        base=BaseSettings(
            resolutions=((128, 128, 128), (256, 256, 128), (512, 512, 128)), weight_tv=5e-4, weight_tv_sh=5e-3
        ),
        pilot=replace(PILOT, iters=750, lr_sigma=1.0, lr_sh_final=1e-3, lr_steps=750, keep_threshold=0.5),
        full=FrameSettings(
            iters=500,
            lr_sh_final=3e-3,
            lr_steps=300,
            keep_threshold=1.0,
            prune_threshold=0.2,
            weight_tv=5e-4,
            weight_tv_sh=5e-3,
        ),
        offset=500.0,
    ),
    downscale_factor=2,
)

TINY = FrameSettings(
    iters=200,
    rays=2000,
    lr_sigma=0.5,
    lr_sh=2e-2,
    lr_sh_final=5e-4,
    lr_steps=200,
    keep_threshold=1.0,
    prune_threshold=0.2,
    weight_tv=1e-3,
    weight_tv_sh=1e-2,
)

streamrf_tiny = _method(
    "streamrf-tiny",
    "StreamRF for a CPU and videos of some 100 pixels: about four minutes for a dozen frames",
    StreamRFModelConfig(
        base=BaseSettings(
            iters=500,
            rays=1500,
            resolutions=((32, 24, 24), (64, 48, 32)),
            upsample_at=(200,),
            lr_sigma=15.0,
            lr_sigma_final=2.0,
            lr_sigma_delay=60,
            lr_sh=3e-2,
            lr_sh_final=5e-3,
            lr_steps=500,
            weight_tv=1e-3,
            weight_tv_sh=1e-2,
        ),
        pilot=replace(
            TINY,
            iters=60,
            rays=1000,
            lr_steps=60,
            keep_threshold=0.5,
            prune_threshold=0.1,
            dilate_before=1,
            dilate_after=1,
        ),
        full=TINY,
        sh_step=2.0**-8,
        offset=8.0,
    ),
    steps_per_save=100,
)
