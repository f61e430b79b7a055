"""The methods `vqrf`, `vqrf-small` and `vqrf-tiny` of nerfstudio's command lines."""

from __future__ import annotations

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from perception.radiance.dvgo_settings import CoarseSettings, FineSettings
from perception.studio.datamanager import RayDataManagerConfig
from perception.studio.optimizers import MaskedAdamConfig, PerStepDecayConfig
from perception.studio.trainer import StudioTrainerConfig
from projects.vqrf.model import VqrfModelConfig
from projects.vqrf.settings import CompressionSettings

RATES = {"density": 0.1, "k0": 0.1, "rgbnet": 1e-3}


def _method(
    name: str, description: str, model: VqrfModelConfig, *, rays: int, decay_steps: int, steps_per_save: int
) -> MethodSpecification:
    """A method of this name: `rays` per step, rates that fall to a tenth in `decay_steps` steps."""
    manager = RayDataManagerConfig(
        dataparser=BlenderDataParserConfig(), train_num_rays_per_batch=rays, eval_num_rays_per_batch=rays
    )
    config = StudioTrainerConfig(
        method_name=name,
        steps_per_save=steps_per_save,
        steps_per_eval_batch=0,
        steps_per_eval_image=5000,
        steps_per_eval_all_images=1_000_000_000,
        mixed_precision=False,
        pipeline=VanillaPipelineConfig(datamanager=manager, model=model),
        optimizers={
            group: {
                "optimizer": MaskedAdamConfig(lr=rate),
                "scheduler": PerStepDecayConfig(decay_steps=decay_steps),
            }
            for group, rate in RATES.items()
        },
        viewer=ViewerConfig(num_rays_per_chunk=8192, quit_on_train_completion=True),
        vis="tensorboard",
    )
    return MethodSpecification(config=config, description=description)


vqrf = _method(
    "vqrf",
    "VQRF: a voxel radiance field compressed to about 1 MB; the paper's recipe",
    VqrfModelConfig(),
    rays=8192,
    decay_steps=20_000,
    steps_per_save=1000,
)

# Short stages leave no time to rise from an opacity of 1e-6.
vqrf_small = _method(
    "vqrf-small",
    "VQRF for a CPU and images of some 200 pixels: about a quarter of an hour",
    VqrfModelConfig(
        coarse=CoarseSettings(iters=400, num_voxels=64**3, alpha_init=1e-4, fast_color_thres=1e-5, view_count_stride=4),
        fine=FineSettings(iters=2300, num_voxels=110**3, pg_scale=(150, 300, 450, 600)),
        compression=CompressionSettings(
            iters=600, codebook_size=1024, codebook_iters=300, codebook_batch=20_000, lr_factor=1.0
        ),
    ),
    rays=1536,
    decay_steps=5000,
    steps_per_save=250,
)

vqrf_tiny = _method(
    "vqrf-tiny",
    "VQRF for a CPU and images of some 100 pixels: about two minutes",
    VqrfModelConfig(
        coarse=CoarseSettings(iters=250, num_voxels=32**3, alpha_init=1e-4, fast_color_thres=1e-5, view_count_stride=4),
        fine=FineSettings(iters=600, num_voxels=48**3, pg_scale=(60, 120, 180, 240), rgbnet_width=64),
        compression=CompressionSettings(
            iters=300, codebook_size=256, codebook_iters=150, codebook_batch=3000, lr_factor=0.8
        ),
    ),
    rays=1024,
    decay_steps=20_000,
    steps_per_save=250,
)
