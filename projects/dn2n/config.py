"""The methods `dn2n`, `dn2n-base`, `dn2n-clean` and `dn2n-tiny` of nerfstudio's command lines."""

from __future__ import annotations

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import MultiStepSchedulerConfig
from nerfstudio.plugins.types import MethodSpecification

from perception.studio.trainer import StudioTrainerConfig
from projects.dn2n.datamanager import DN2NDataManagerConfig
from projects.dn2n.model import DN2NModelConfig
from projects.dn2n.perturbation import PerturbationSettings
from projects.dn2n.pipeline import DN2NPipelineConfig
from projects.dn2n.settings import NetworkSettings, TrainingSettings
from projects.dn2n.sources import SourceSettings

DECAY_STEPS = 30_000


def _method(
    name: str,
    description: str,
    model: DN2NModelConfig,
    *,
    rays: int = 256,
    rates: tuple[float, float] = (5e-4, 2e-4),
    decay_steps: int = DECAY_STEPS,
) -> MethodSpecification:
    """A method of this name: rates of the feature network and of the others, halved every so many steps."""
    last = model.training.iters
    config = StudioTrainerConfig(
        method_name=name,
        steps_per_save=1000,
        steps_per_eval_batch=0,
        steps_per_eval_image=10_000,
        steps_per_eval_all_images=1_000_000_000,
        mixed_precision=False,
        pipeline=DN2NPipelineConfig(
            datamanager=DN2NDataManagerConfig(train_num_rays_per_batch=rays, eval_num_rays_per_batch=rays), model=model
        ),
        optimizers={
            group: {
                "optimizer": AdamOptimizerConfig(lr=rate, eps=1e-8),
                "scheduler": MultiStepSchedulerConfig(
                    max_steps=last, gamma=0.5, milestones=tuple(range(decay_steps, last, decay_steps))
                ),
            }
            for group, rate in zip(("feature_net", "networks"), rates)
        },
        viewer=ViewerConfig(num_rays_per_chunk=4096, quit_on_train_completion=True),
        vis="tensorboard",
    )
    return MethodSpecification(config=config, description=description)


def _clean() -> TrainingSettings:
    return TrainingSettings(
        source_sets=1,
        perturbation=PerturbationSettings(probability=0.0),
        offline_edits=False,
        weight_self=0.0,
        weight_neighbour=0.0,
    )


dn2n = _method("dn2n", "DN2N: a field for all scenes that edited images are fed to", DN2NModelConfig())

dn2n_base = _method(
    "dn2n-base",
    "DN2N without its self-view and neighbouring-view terms",
    DN2NModelConfig(training=TrainingSettings(weight_self=0.0, weight_neighbour=0.0)),
)

dn2n_clean = _method(
    "dn2n-clean",
    "DN2N's field trained on images as they are: IBRNet",
    DN2NModelConfig(training=_clean()),
)

dn2n_tiny = _method(
    "dn2n-tiny",
    "DN2N for a CPU and images of some 70 pixels: about five minutes",
    DN2NModelConfig(
        network=NetworkSettings(
            features=16, widths=(16, 32, 64), blocks=(2, 2, 2), coarse_samples=16, fine_samples=16, min_seen=4
        ),
        sources=SourceSettings(count=6, spread=1),
        training=TrainingSettings(iters=540, style_prompts=20),
    ),
    rays=128,
    rates=(3e-3, 2e-3),
    decay_steps=180,
)
