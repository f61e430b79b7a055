"""The methods `nerf-4k`, `nerf-4k-1x`, `nerf-4k-bounded` and `nerf-4k-tiny` of nerfstudio's command lines."""

from __future__ import annotations

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from perception.studio.llff_dataparser import LLFFDataParserConfig
from perception.studio.optimizers import MaskedAdamConfig, PerStepDecayConfig
from perception.studio.pair_datamanager import PairDataManagerConfig
from perception.studio.samplers import PatchSamplerConfig
from perception.studio.trainer import StudioTrainerConfig
from projects.nerf_4k.model import EnlargingModelConfig, Nerf4kBoundedModelConfig, Nerf4kModelConfig
from projects.nerf_4k.settings import DecoderSettings, EncoderSettings, JointSettings

RATES = {"density": 0.1, "k0": 0.1, "rgbnet": 1e-3}
FIELD_DECAY, NETWORK_DECAY = 20_000, 300_000  # steps in which rates fall to a tenth
STEPS_PER_SAVE = 5000
PATCHES = PatchSamplerConfig(side=64)


def _method(
    name: str,
    description: str,
    model: EnlargingModelConfig,
    parser: DataParserConfig,
    *,
    patches: PatchSamplerConfig = PATCHES,
    rays: int = 4096,
    network_rate: float = 2e-4,
    network_decay: int = NETWORK_DECAY,
    steps_per_save: int = STEPS_PER_SAVE,
) -> MethodSpecification:
    """A method of this name: `rays` per step of the field's own stages, `network_rate` of decoder and discriminator."""
    manager = PairDataManagerConfig(
        dataparser=parser,
        scale=model.scale,
        sampler=patches,
        train_num_rays_per_batch=rays,
        eval_num_rays_per_batch=rays,
    )
    groups = {group: (rate, FIELD_DECAY) for group, rate in RATES.items()}
    groups |= dict.fromkeys(("decoder", "discriminator"), (network_rate, network_decay))
    config = StudioTrainerConfig(
        method_name=name,
        steps_per_save=steps_per_save,
        steps_per_eval_batch=0,
        steps_per_eval_image=30_000,
        steps_per_eval_all_images=1_000_000_000,
        mixed_precision=False,
        pipeline=VanillaPipelineConfig(datamanager=manager, model=model),
        optimizers={
            group: {"optimizer": MaskedAdamConfig(lr=rate), "scheduler": PerStepDecayConfig(decay_steps=steps)}
            for group, (rate, steps) in groups.items()
        },
        viewer=ViewerConfig(num_rays_per_chunk=8192, quit_on_train_completion=True),
        vis="tensorboard",
    )
    return MethodSpecification(config=config, description=description)


nerf_4k = _method(
    "nerf-4k",
    "4K-NeRF: forward-facing scenes rendered 4 times larger than the field; the paper's recipe",
    Nerf4kModelConfig(),
    LLFFDataParserConfig(downscale_factor=4, sr_scale=4),
)

nerf_4k_1x = _method(
    "nerf-4k-1x",
    "4K-NeRF whose decoder refines renderings of forward-facing scenes at their own size",
    Nerf4kModelConfig(scale=1),
    LLFFDataParserConfig(downscale_factor=4),
)

nerf_4k_bounded = _method(
    "nerf-4k-bounded",
    "4K-NeRF whose decoder refines renderings of a bounded scene that cameras surround; the paper's recipe",
    Nerf4kBoundedModelConfig(
        scale=1,
        joint=JointSettings(iters=280_000, weight_distortion=0.0),
    ),
    BlenderDataParserConfig(),
    patches=PatchSamplerConfig(side=64, min_pixels=2048),
    rays=8192,
)

nerf_4k_tiny = _method(
    "nerf-4k-tiny",
    "4K-NeRF for a CPU and small images of some 80 pixels: about four minutes",
    Nerf4kModelConfig(
        encoder=EncoderSettings(iters=1000, num_voxels=96 * 72 * 48, mpi_depth=48, pg_scale=(150, 300, 450)),
        decoder=DecoderSettings(num_feat=32, num_block=1, num_grow_ch=16),
        joint=JointSettings(iters=1400, decay_steps=2000, weight_gan=0.0, weight_perceptual=0.0, weight_style=0.0),
    ),
    LLFFDataParserConfig(sr_scale=4),
    patches=PatchSamplerConfig(side=24),
    rays=1024,
    network_rate=1e-3,
    network_decay=2000,
    steps_per_save=250,
)
