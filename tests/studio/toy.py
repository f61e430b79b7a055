"""The smallest method that needs everything the methods share: a dense grid that grows from stage to stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from torch import Tensor
from torch.nn import Parameter, functional

from perception.studio.datamanager import RayDataManagerConfig, unnormalised
from perception.studio.model import RadianceModel, RadianceModelConfig
from perception.studio.optimizers import MaskedAdamConfig, PerStepDecayConfig
from perception.studio.samplers import PoolSamplerConfig
from perception.studio.stages import Stage
from perception.studio.trainer import StudioTrainer, StudioTrainerConfig

SIDES = {"coarse": 6, "fine": 9, "polish": 9}  # voxels along each edge
NEAR, FAR, SAMPLES = 2.0, 6.0, 12
FACTOR = 0.25  # of the learning rate, from the last stage on
STEPS = 20


@dataclass
class ToySettings:
    """Settings of a stage."""

    iters: int


class CoarseStage(Stage["ToyModel", ToySettings]):
    """The grid that the model was made with."""


class FineStage(Stage["ToyModel", ToySettings]):
    """A larger grid, trained on what is not transparent."""

    def start(self, run):
        model = run.model
        model.changes.append((run.step, self.name))
        grown = functional.interpolate(model.grid.detach(), size=[SIDES["fine"]] * 3, mode="trilinear")
        model.grid = Parameter(grown)
        run.restart("grid")
        model.pool = (run.manager.pixels.table[:, 3] > 0).nonzero()[:, 0].int().to(model.device)
        self.take_up(run)

    def take_up(self, run):
        run.manager.use(PoolSamplerConfig(), start=run.model.stages.stages[1].span.start, pixels=run.model.pool)


class PolishStage(FineStage):
    """The same at a lower rate."""

    def start(self, run):
        run.model.changes.append((run.step, self.name))
        run.scale_rates(FACTOR, "grid")
        self.take_up(run)


@dataclass
class ToyModelConfig(RadianceModelConfig):
    """Settings of :class:`ToyModel`: the grid is new at step 8; the rate falls at step 15."""

    _target: type = field(default_factory=lambda: ToyModel)
    coarse: ToySettings = field(default_factory=lambda: ToySettings(8))
    fine: ToySettings = field(default_factory=lambda: ToySettings(7))
    polish: ToySettings = field(default_factory=lambda: ToySettings(STEPS - 15))

    def stages(self) -> list[Stage]:
        """Three."""
        return [CoarseStage("coarse", self.coarse), FineStage("fine", self.fine), PolishStage("polish", self.polish)]


class ToyModel(RadianceModel):
    """Density and colour in one grid (1, 4, X, Y, Z), with a scale that is never resized."""

    def populate_modules(self) -> None:
        """An empty coarse grid."""
        super().populate_modules()
        self.grid = Parameter(torch.zeros(1, 4, *[SIDES["coarse"]] * 3))
        self.scale = Parameter(torch.ones(1))
        self.register_buffer("pool", torch.zeros(0, dtype=torch.int32))
        self.changes: list[tuple[int, str]] = []

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """The grid and the scale learn at different rates."""
        return {"grid": [self.grid], "scale": [self.scale]}

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:
        """Render rays (N) from ``SAMPLES`` points between two fixed depths."""
        rays_o, rays_d, _ = unnormalised(ray_bundle)
        depths = torch.linspace(NEAR, FAR, SAMPLES, device=rays_o.device)
        points = rays_o[:, None] + rays_d[:, None] * depths[:, None]  # (N, S, 3)
        values = functional.grid_sample(self.grid, points[None, :, :, None] / 1.5, align_corners=True)
        density, colour = values[0, :, :, :, 0].split([1, 3])  # (1, N, S), (3, N, S)
        alpha = 1 - torch.exp(-functional.softplus(density[0] * self.scale - 2))
        clear = torch.cumprod(1 - alpha, -1)
        weights = alpha * torch.cat([torch.ones_like(clear[:, :1]), clear[:, :-1]], -1)
        last = clear[:, -1:]
        return {
            "rgb": (weights * torch.sigmoid(colour)).sum(-1).T + last,
            "accumulation": 1 - last,
            "depth": (weights * depths).sum(-1, keepdim=True) + last * FAR,
        }

    def get_loss_dict(self, outputs: dict, batch: dict, metrics_dict: dict | None = None) -> dict[str, Tensor]:
        """Squared error of the colours."""
        return {"rgb_loss": functional.mse_loss(outputs["rgb"], self.target(batch))}


def toy_config(data: Path, out: Path) -> StudioTrainerConfig:
    """A run of ``STEPS`` steps."""
    config = StudioTrainerConfig(
        method_name="toy",
        output_dir=out,
        experiment_name="run",
        timestamp="now",
        data=data,
        vis="tensorboard",
        steps_per_eval_batch=0,
        steps_per_eval_image=0,
        steps_per_eval_all_images=STEPS - 1,
        steps_per_save=1000,
        mixed_precision=False,
        pipeline=VanillaPipelineConfig(
            datamanager=RayDataManagerConfig(
                dataparser=BlenderDataParserConfig(), data=data, train_num_rays_per_batch=96
            ),
            model=ToyModelConfig(compute_lpips=False),
        ),
        optimizers={
            "grid": {
                "optimizer": MaskedAdamConfig(lr=0.1, skip_zero_grad=True),
                "scheduler": PerStepDecayConfig(decay_steps=50),
            },
            "scale": {"optimizer": MaskedAdamConfig(lr=0.01), "scheduler": None},
        },
    )
    config.machine.device_type = "cpu"
    config.logging.local_writer.enable = False
    config.viewer.quit_on_train_completion = True
    return config


def make_trainer(config: StudioTrainerConfig) -> StudioTrainer:
    """A trainer set up as `ns-train` does it."""
    torch.manual_seed(config.machine.seed)
    config.get_base_dir().mkdir(parents=True, exist_ok=True)
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    return trainer


def train(config: StudioTrainerConfig) -> StudioTrainer:
    """Train from where the configuration says to its end."""
    trainer = make_trainer(config)
    trainer.train()
    return trainer
