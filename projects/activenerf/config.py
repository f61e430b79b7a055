"""The methods `activenerf`, `activenerf-i`, `activenerf-ii`, `activenerf-llff` and `activenerf-tiny` of nerfstudio's
command lines."""

from __future__ import annotations

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from perception.studio.llff_dataparser import LLFFDataParserConfig
from perception.studio.optimizers import PerStepDecayConfig
from perception.studio.trainer import StudioTrainerConfig
from projects.activenerf.model import ActiveNerfModelConfig
from projects.activenerf.pools import PoolDataManagerConfig
from projects.activenerf.settings import TrainingSettings

FEW = (40_000, 80_000, 120_000, 160_000)  # acquisitions of the paper's settings I and II


def _method(
    name: str,
    description: str,
    model: ActiveNerfModelConfig,
    parser: DataParserConfig,
    *,
    initial: int,
    rays: int = 1024,
    rate: float = 5e-4,
    decay_steps: int = 500_000,
    steps_per_save: int = 5000,
) -> MethodSpecification:
    """A method of this name that begins with `initial` views, draws `rays` per step and starts at a rate that falls to
    a tenth in `decay_steps` steps."""
    manager = PoolDataManagerConfig(
        dataparser=parser, initial_views=initial, train_num_rays_per_batch=rays, eval_num_rays_per_batch=rays
    )
    config = StudioTrainerConfig(
        method_name=name,
        steps_per_save=steps_per_save,
        steps_per_eval_batch=0,
        steps_per_eval_image=25_000,
        steps_per_eval_all_images=1_000_000_000,
        mixed_precision=False,
        pipeline=VanillaPipelineConfig(datamanager=manager, model=model),
        optimizers={
            "fields": {
                "optimizer": AdamOptimizerConfig(lr=rate, eps=1e-8),
                "scheduler": PerStepDecayConfig(decay_steps=decay_steps),
            }
        },
        viewer=ViewerConfig(num_rays_per_chunk=4096, quit_on_train_completion=True),
        vis="tensorboard",
    )
    return MethodSpecification(config=config, description=description)


activenerf = _method(
    "activenerf",
    "ActiveNeRF: a field with uncertainty that acquires its views; 20 and four times 4 more, the released recipe",
    ActiveNerfModelConfig(),
    BlenderDataParserConfig(),
    initial=20,
)

activenerf_i = _method(
    "activenerf-i",
    "ActiveNeRF in the paper's setting I: 4 views and four times 4 more in 200 000 steps",
    ActiveNerfModelConfig(training=TrainingSettings(iters=200_000), active_iters=FEW),
    BlenderDataParserConfig(),
    initial=4,
)

activenerf_ii = _method(
    "activenerf-ii",
    "ActiveNeRF in what is taken for the paper's setting II: 2 views and four times 2 more in 200 000 steps",
    ActiveNerfModelConfig(training=TrainingSettings(iters=200_000), active_iters=FEW, choose_k=2),
    BlenderDataParserConfig(),
    initial=2,
)

activenerf_llff = _method(
    "activenerf-llff",
    "ActiveNeRF for forward-facing scenes: 5 views and four times 2 more, the released recipe",
    ActiveNerfModelConfig(use_ndc=True, raw_noise_std=1.0, w_reg=0.0, choose_k=2),
    LLFFDataParserConfig(downscale_factor=1),
    initial=5,
    decay_steps=250_000,
)

# On white scenes nearly every batch has a ray that meets nothing: a short run would hardly learn any uncertainty.
activenerf_tiny = _method(
    "activenerf-tiny",
    "ActiveNeRF for a CPU and images of some 30 pixels: about half a minute",
    ActiveNerfModelConfig(
        num_coarse_samples=24,
        num_importance_samples=24,
        depth=4,
        width=48,
        skips=(),
        multires=6,
        multires_views=2,
        uncert_fallback="ray",
        training=TrainingSettings(iters=500),
        active_iters=(100, 200, 300),
        choose_k=4,
    ),
    BlenderDataParserConfig(),
    initial=4,
    rays=192,
    rate=4e-3,
    decay_steps=1000,
    steps_per_save=250,
)
