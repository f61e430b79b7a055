"""The methods `rise-sdf`, `rise-sdf-tiny` and `neus-blender` of nerfstudio's command lines."""

from __future__ import annotations

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from perception.studio.material_data import MaterialDataManagerConfig
from perception.studio.optimizers import AdamWithBetasConfig, WarmupExponentialConfig
from perception.studio.tensoir_dataparser import TensoIRDataParserConfig
from perception.studio.trainer import StudioTrainerConfig
from projects.rise_sdf.model import NeusModelConfig, RiseSdfModelConfig, StageSettings, SurfaceModelConfig
from projects.rise_sdf.settings import (
    GeometrySettings,
    GridSettings,
    HeadSettings,
    IndirectSettings,
    LightSettings,
    LossSettings,
)


def _method(
    name: str,
    description: str,
    model: SurfaceModelConfig,
    parser: DataParserConfig,
    rates: dict[str, float],
    *,
    warmup_steps: int = 500,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-12,
    steps_per_save: int = 5000,
) -> MethodSpecification:
    """A method of this name, with the learning rate of each parameter group."""
    schedule = WarmupExponentialConfig(warmup_steps=warmup_steps, max_steps=model.schedule().total_steps)
    config = StudioTrainerConfig(
        method_name=name,
        steps_per_save=steps_per_save,
        steps_per_eval_batch=0,
        steps_per_eval_image=5000,
        steps_per_eval_all_images=1_000_000_000,
        mixed_precision=False,
        pipeline=VanillaPipelineConfig(
            datamanager=MaterialDataManagerConfig(
                dataparser=parser, train_num_rays_per_batch=model.num_rays, eval_num_rays_per_batch=4096
            ),
            model=model,
        ),
        optimizers={
            group: {"optimizer": AdamWithBetasConfig(lr=rate, betas=betas, eps=eps), "scheduler": schedule}
            for group, rate in rates.items()
        },
        viewer=ViewerConfig(num_rays_per_chunk=4096, quit_on_train_completion=True),
        vis="tensorboard",
    )
    return MethodSpecification(config=config, description=description)


RATES = {"geometry": 0.005, "texture": 0.005, "variance": 0.001, "emitter": 0.01}

rise_sdf = _method(
    "rise-sdf",
    "RISE-SDF: geometry, materials and light of a glossy object; the paper's recipe",
    RiseSdfModelConfig(),
    TensoIRDataParserConfig(),
    RATES,
)

rise_sdf_tiny = _method(
    "rise-sdf-tiny",
    "RISE-SDF for a CPU and images of some 80 pixels: about five minutes",
    RiseSdfModelConfig(
        geometry=GeometrySettings(
            grid=GridSettings(
                num_levels=6, log2_table_size=15, base_resolution=8, start_level=3, start_step=150, update_steps=75
            ),
            features=16,
            width=32,
            variance=0.45,
            cos_anneal_end=300,
            num_samples=192,
            occupancy_resolution=48,
        ),
        heads=HeadSettings(width=32, depth=2, material_depth=2, frequencies=4, sh_degrees=4, table_size=64),
        light=LightSettings(resolution=64, exact_solid_angle=True, nonnegative=True),
        indirect=IndirectSettings(samples=32),
        loss=LossSettings(curvature=(0.0,)),
        radiance=StageSettings(400),
        physical=StageSettings(600),
        num_rays=256,
        max_rays=1024,
        target_samples=10_000,
    ),
    TensoIRDataParserConfig(),
    {**RATES, "variance": 0.003, "emitter": 0.02},
    warmup_steps=50,
    steps_per_save=200,
)

neus_blender = _method(
    "neus-blender",
    "NeuS on a hash grid, the baseline of RISE-SDF",
    NeusModelConfig(),
    BlenderDataParserConfig(),
    {"geometry": 0.01, "texture": 0.01, "variance": 0.001},
    betas=(0.9, 0.99),
    eps=1e-15,
)
