"""RISE-SDF and NeuS as nerfstudio models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn import Parameter

from perception.datasets.hdr_images import read_latlong
from perception.engine.errors import UserError
from perception.radiance.environment import EnvironmentLight, LightMaps
from perception.radiance.metrics import psnr, ssim
from perception.radiance.split_sum import linear_to_srgb, srgb_to_linear
from perception.studio.datamanager import unnormalised
from perception.studio.errors import SceneError
from perception.studio.images import FileStore
from perception.studio.model import OPAQUE, RadianceModel, RadianceModelConfig
from perception.studio.samplers import generator
from perception.studio.scene_checks import SceneUse
from perception.studio.stages import Stage
from perception.studio.training_run import TrainingRun
from projects.rise_sdf.core import Rendering, RiseSDF
from projects.rise_sdf.losses import loss_terms, weight_at
from projects.rise_sdf.measures import normal_error, scaled_psnr
from projects.rise_sdf.neus import NeuS
from projects.rise_sdf.settings import (
    GeometrySettings,
    GridSettings,
    HeadSettings,
    IndirectSettings,
    LightSettings,
    LossSettings,
)

RENDERING = "rendering"
"""Key of nerfstudio's dictionary of outputs under which a training step finds the typed rendering."""
MAPS = ("albedo", "metallic", "roughness", "diffuse", "specular", "diffuse_phys", "specular_phys", "specular_light")


@dataclass
class StageSettings:
    """A stage of training."""

    iters: int
    """Training steps."""


class SurfaceStage(Stage["SurfaceModel", StageSettings]):
    """Steps on rays whose number follows the samples that they have."""

    def before_step(self, run: TrainingRun[SurfaceModel], local: int) -> None:
        model = run.model
        model.begin_step(run.step, generator(run.manager.seed, run.step, 1))
        run.manager.set_num_rays(int(model.num_rays))

    def after_step(self, run: TrainingRun[SurfaceModel], local: int) -> None:
        run.model.end_step()


@dataclass
class SurfaceModelConfig(RadianceModelConfig):
    """What both methods have."""

    _target: type = field(default_factory=lambda: SurfaceModel)
    eval_num_rays_per_chunk: int = 4096
    """Rays that are rendered at once."""
    geometry: GeometrySettings = field(default_factory=GeometrySettings)
    """The signed distance."""
    heads: HeadSettings = field(default_factory=HeadSettings)
    """Networks of colours and materials."""
    loss: LossSettings = field(default_factory=LossSettings)
    """Weights of losses."""
    num_rays: int = 256
    """Rays of the first step."""
    max_rays: int = 4096
    """Most rays of a step."""
    target_samples: int = 256 * 1024
    """Samples per step to which the number of rays is fitted; 0 keeps it."""
    released_scores: bool = False
    """Measure as the released script does: a pixel of any coverage is the object's, and images are put on their
    background as in training. Otherwise the object is where coverage is above a half, and images are what viewers
    show."""

    free_on_resume: ClassVar[frozenset[str]] = RadianceModelConfig.free_on_resume | {"released_scores"}
    sizes: ClassVar[frozenset[str]] = frozenset({"light.resolution"})
    honoured: ClassVar[frozenset[str]] = frozenset()

    def scene_use(self) -> SceneUse:
        """A bounded scene that the cameras surround."""
        return SceneUse(surrounded=True)


class SurfaceModel(RadianceModel):
    """A surface, trained by rays. ``num_rays`` is that of the next step, ``background`` the sRGB colour behind it."""

    config: SurfaceModelConfig
    field: RiseSDF | NeuS

    def populate_modules(self) -> None:
        """The field, untrained."""
        self._check_losses()
        super().populate_modules()
        self.field = self.make_field()
        self.register_buffer("num_rays", torch.tensor(self.config.num_rays))
        self.register_buffer("background", torch.ones(3))
        self.step, self.random = 0, torch.Generator()
        self._masked = True  # whether images say where the object is

    def make_field(self) -> RiseSDF | NeuS:
        """The field, untrained."""
        raise NotImplementedError

    def _check_losses(self) -> None:
        for name, weight in vars(self.config.loss).items():
            try:
                weight_at(weight, 0)
            except ValueError as error:
                raise SceneError(f"--pipeline.model.loss.{name.replace('_', '-')}: {error}") from None

    # Training

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        """The stages; the model learns of its background."""
        callbacks = super().get_training_callbacks(attributes)
        manager = self.stages.run.manager
        self.background.copy_(manager.background)
        self._masked = (
            isinstance(manager.pixels, FileStore) and manager.pixels.coverage(torch.zeros(1).long()) is not None
        )
        if not self._masked:
            CONSOLE.log(
                "[yellow]The images have no alpha channel: there is no mask loss, and the background stays as it is"
            )
        return callbacks

    def begin_step(self, step: int, random: torch.Generator) -> None:
        """Follow the schedules, and look again at which cells are occupied."""
        self.step, self.random = step, random
        self.field.surface.set_step(step)
        self.field.surface.update_occupancy(step, random)

    def end_step(self) -> None:
        """What follows the optimisers' step."""

    def fit_rays(self, rays: int, samples: int) -> None:
        """Let the next step have about as many samples as are wanted."""
        if self.config.target_samples and samples:
            wanted = int(rays * self.config.target_samples / samples)
            self.num_rays.fill_(max(1, min(int(0.9 * rays + 0.1 * wanted), self.config.max_rays)))

    def render_training(self, rays_o: Tensor, rays_d: Tensor, *, random_background: bool) -> dict[str, Any]:
        """Outputs of a training step: places are drawn along rays, and the background is, if that can be."""
        jitter = torch.rand(len(rays_o), generator=self.random).to(rays_o.device)
        drawn = torch.rand(3, generator=self.random).to(rays_o.device)
        background = drawn if random_background else srgb_to_linear(self.background)
        tangents = self.random if self.weight("curvature") else None
        rendering = self.render(rays_o, rays_d, background, jitter=jitter, tangents=tangents)
        self.fit_rays(len(rays_o), len(rendering.samples.sdf))
        return {"rgb": rendering.colours["rgb"], RENDERING: rendering, "background": background}

    def render(self, rays_o: Tensor, rays_d: Tensor, background: Tensor, **training: Any) -> Rendering:
        """Rays (N, 3) before a linear background (3,)."""
        raise NotImplementedError

    def weight(self, name: str) -> float:
        """Of a loss, at this step."""
        return weight_at(getattr(self.config.loss, name), self.step)

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Any]:
        """In training the typed rendering of rays (N) and its background; else all maps, as pictures."""
        rays_o, _, rays_d = unnormalised(ray_bundle)
        if self.training:
            return self.render_training(rays_o, rays_d, random_background=self._masked)
        self.field.surface.set_step(self.schedule.total_steps)
        with torch.no_grad():
            return self.pictures(self.render(rays_o, rays_d, srgb_to_linear(self.shown_background())))

    def background_colour(self) -> Tensor:
        """sRGB, as the scene was read."""
        return self.background

    def pictures(self, rendering: Rendering) -> dict[str, Tensor]:
        """Colours, and all maps with values in [0, 1]: normals as (n + 1) / 2; depth in scene units."""
        maps = rendering.maps
        opacity = maps["opacity"]
        far = torch.full_like(opacity, 4 * self.config.geometry.radius)
        depth = torch.where(opacity > OPAQUE, maps["depth"] / opacity.clamp(min=1e-6), far)
        pictures = {**rendering.colours, "accumulation": opacity, "depth": depth, "normal": (maps["normal"] + 1) / 2}
        return pictures | {name: maps[name] for name in MAPS if name in maps}

    def get_metrics_dict(self, outputs: dict, batch: dict) -> dict[str, Tensor]:
        """PSNR of a batch of rays, how many there are, and how sharp the surface is."""
        target = self.target(batch) if RENDERING not in outputs else self.composite(outputs, batch)
        metrics = {"psnr": psnr(outputs["rgb"].detach(), target), "inv_s": self.field.surface.deviation.inv_s.detach()}
        if RENDERING in outputs:
            metrics["samples"] = torch.tensor(float(len(outputs[RENDERING].samples.sdf)))
        return metrics

    def composite(self, outputs: dict, batch: dict) -> Tensor:
        """The colours (N, 3) of a batch, on the background that the rendering has."""
        target = super().target(batch)
        if "alpha" not in batch:
            return target
        return self.moved_to(outputs["background"], target, batch["alpha"][:, None])

    def moved_to(self, background: Tensor, colours: Tensor, alpha: Tensor) -> Tensor:
        """Colours (..., 3) of images with alpha (..., 1), on another, linear background (3,), as training has them."""
        clear = 1 - alpha.to(colours)
        return colours - self.background * clear + self.behind(background, clear)

    def behind(self, background: Tensor, clear: Tensor) -> Tensor:
        """What a linear background (3,) adds in sRGB (N, 3) where a share (N, 1) of it is seen."""
        return linear_to_srgb(background * clear)

    def get_loss_dict(self, outputs: dict, batch: dict, metrics_dict: dict | None = None) -> dict[str, Tensor]:
        """All losses whose weight is not 0 at this step."""
        if RENDERING not in outputs:  # evaluation of a batch: the colours are all there is
            return {"rgb_mse": torch.nn.functional.mse_loss(outputs["rgb"], self.target(batch))}
        rendering = outputs[RENDERING]
        weights = {name: self.weight(name) for name in vars(self.config.loss)}
        mask = batch["alpha"].to(self.device) if "alpha" in batch else None
        terms = loss_terms(
            rendering.samples,
            rendering.colours,
            self.composite(outputs, batch),
            mask,
            curvature=rendering.curvature,
            wanted=[name for name, weight in weights.items() if weight],
        )
        return {name: weights[name] * term for name, term in terms.items()}

    # Evaluation

    def target(self, batch: dict) -> Tensor:
        """The colours of a batch; those that ``released_scores`` are taken with are blended as in training."""
        return self._scored(super().target(batch), batch)

    def _scored(self, colours: Tensor, batch: dict) -> Tensor:
        """Colours (H, W, 3) on the images' own background as scores want them."""
        if self.training or not self.config.released_scores or "alpha" not in batch:
            return colours
        return self.moved_to(srgb_to_linear(self.background), colours, batch["alpha"])

    def get_image_metrics_and_images(self, outputs: dict, batch: dict) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Besides those of all methods: ``psnr_phys`` and ``ssim_phys`` of the shaded colours; where the truth is
        known, PSNR of albedo, roughness, metallic and relit pictures after scaling (``_unlit``: of those under the
        learned light, which relit ones have to beat), the factors of albedo, and the mean angle ``normal_mae`` in
        degrees."""
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        target = self.target(batch)
        if "rgb_phys" in outputs:
            metrics["psnr_phys"] = float(psnr(outputs["rgb_phys"], target))
            if min(target.shape[:2]) >= 11:
                metrics["ssim_phys"] = float(ssim(outputs["rgb_phys"], target))
            images["phys"] = torch.cat([target, outputs["rgb_phys"].clamp(0, 1)], 1)
        images["normal"] = outputs["normal"].clamp(0, 1)
        if "alpha" not in batch:
            return metrics, images
        mask = batch["alpha"][..., 0].to(self.device) > (0 if self.config.released_scores else OPAQUE)
        true = {name.removeprefix("true_"): batch[name].to(self.device) for name in batch if name.startswith("true_")}
        true |= {name: self._scored(true[name], batch) for name in true if name.startswith("relit_")}
        for name in ("albedo", "roughness", "metallic"):
            if name in true and name in outputs:
                value, scale = scaled_psnr(outputs[name], true[name], mask)
                metrics[f"{name}_psnr"] = float(value)
                if name == "albedo":
                    metrics |= {f"albedo_scale_{c}": float(s) for c, s in zip("rgb", scale)}
                    images["albedo"] = torch.cat([true[name], (outputs[name] * scale).clamp(0, 1)], 1)
        if "normal" in true:
            metrics["normal_mae"] = float(normal_error(outputs["normal"] * 2 - 1, true["normal"], mask))
        for name in true:
            if name.startswith("relit_") and name in outputs:
                value, _ = scaled_psnr(outputs[name], true[name], mask)
                metrics[f"{name}_psnr"] = float(value)
                metrics[f"{name}_psnr_unscaled"] = float(psnr(outputs[name], true[name]))
                metrics[f"{name}_psnr_unlit"] = float(scaled_psnr(outputs["rgb_phys"], true[name], mask)[0])
                images[name] = torch.cat([true[name], outputs[name].clamp(0, 1)], 1)
        return metrics, images


@dataclass
class NeusModelConfig(SurfaceModelConfig):
    """NeuS on a hash grid."""

    _target: type = field(default_factory=lambda: NeusModel)
    geometry: GeometrySettings = field(
        default_factory=lambda: GeometrySettings(
            grid=GridSettings(base_resolution=16, start_level=16, start_step=0),
            gradient="analytic",
            cos_anneal_end=20_000,
        )
    )
    """The signed distance."""
    heads: HeadSettings = field(default_factory=lambda: HeadSettings(sh_degrees=4))
    """The colour network."""
    loss: LossSettings = field(
        default_factory=lambda: LossSettings(eikonal=(0.1,), curvature=(0.0,), normal_orientation=(0.0,))
    )
    """Weights of losses."""
    num_rays: int = 4096
    """Rays of a step."""
    target_samples: int = 0
    """Samples per step to which the number of rays is fitted; 0 keeps it."""
    training: StageSettings = field(default_factory=lambda: StageSettings(30_000))
    """The only stage."""

    def stages(self) -> list[Stage]:
        """One."""
        return [SurfaceStage("training", self.training)]


class NeusModel(SurfaceModel):
    """See :class:`NeusModelConfig`."""

    config: NeusModelConfig
    field: NeuS

    def make_field(self) -> NeuS:
        """The field, untrained."""
        return NeuS(self.config.geometry, self.config.heads)

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Geometry, colours, sharpness."""
        surface = self.field.surface
        return {
            "geometry": list(surface.sdf.parameters()),
            "texture": list(self.field.radiance.parameters()),
            "variance": list(surface.deviation.parameters()),
        }

    def behind(self, background: Tensor, clear: Tensor) -> Tensor:
        """sRGB colours are blended as they are."""
        return linear_to_srgb(background) * clear

    def render(self, rays_o: Tensor, rays_d: Tensor, background: Tensor, **training: Any) -> Rendering:
        """Rays (N, 3) before a linear background (3,); colours of this field are sRGB."""
        return self.field(rays_o, rays_d, background=linear_to_srgb(background), **training)


@dataclass
class RiseSdfModelConfig(SurfaceModelConfig):
    """RISE-SDF."""

    _target: type = field(default_factory=lambda: RiseSdfModel)
    light: LightSettings = field(default_factory=LightSettings)
    """The learned light."""
    indirect: IndirectSettings = field(default_factory=IndirectSettings)
    """What mirror rays meet."""
    radiance: StageSettings = field(default_factory=lambda: StageSettings(10_000))
    """First stage: the radiance field alone."""
    physical: StageSettings = field(default_factory=lambda: StageSettings(70_000))
    """Second stage: with materials and light."""
    relight: bool = True
    """Render and measure views under the scene's other lights as well, where it has them."""
    clamp_lights: bool = False
    """Cut the radiance of these lights at 1, as the published settings do."""
    lights_up: Literal["z", "y"] = "z"
    """Axis of the scene that the upper edge of these lights is."""

    free_on_resume: ClassVar[frozenset[str]] = SurfaceModelConfig.free_on_resume | {
        "relight",
        "clamp_lights",
        "lights_up",
    }

    def stages(self) -> list[Stage]:
        """Radiance, then radiance and materials together."""
        return [SurfaceStage("radiance", self.radiance), SurfaceStage("physical", self.physical)]


class RiseSdfModel(SurfaceModel):
    """See :class:`RiseSdfModelConfig`."""

    config: RiseSdfModelConfig
    field: RiseSDF

    def populate_modules(self) -> None:
        """The field, and the lights under which it will be shown."""
        super().populate_modules()
        metadata = self.kwargs.get("metadata") or {}
        self._other_lights = dict(metadata.get("lights", {})) if self.config.relight else {}
        self._maps: tuple[tuple, LightMaps] | None = None
        self._relit: LightMaps | None = None  # under which views are rendered now, instead of the learned one
        self._filtered: dict[str, LightMaps] = {}

    def make_field(self) -> RiseSDF:
        """The field, untrained."""
        try:
            return RiseSDF(self.config.geometry, self.config.heads, self.config.light, self.config.indirect)
        except ValueError as error:
            raise SceneError(f"--pipeline.model.light.resolution: {error}") from None

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Geometry, networks, sharpness, light."""
        surface = self.field.surface
        return {
            "geometry": list(surface.sdf.parameters()),
            "texture": list(self.field.texture.parameters()),
            "variance": list(surface.deviation.parameters()),
            "emitter": list(self.field.light.parameters()),
        }

    def end_step(self) -> None:
        """Keep the light from becoming negative, if that is asked for."""
        if self.config.light.nonnegative:
            self.field.light.clamp_()

    def render(self, rays_o: Tensor, rays_d: Tensor, background: Tensor, **training: Any) -> Rendering:
        """Rays (N, 3) before a linear background (3,)."""
        if self.training:
            physical = self.step >= self.config.radiance.iters
            light = self.field.light.build() if physical else None
            return self.field(rays_o, rays_d, light=light, background=background, **training)
        light = self._relit or self.learned_light()
        return self.field(rays_o, rays_d, light=light, background=background, relighting=self._relit is not None)

    def learned_light(self) -> LightMaps:
        """The learned light, filtered; kept until it changes."""
        base = self.field.light.base
        state = (base.data_ptr(), base._version, base.device)
        if self._maps is None or self._maps[0] != state:
            with torch.no_grad():
                self._maps = (state, self.field.light.build())
        return self._maps[1]

    # Other lights

    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Tensor]:
        """All maps of a view, and ``relit_NAME`` under each light of the scene."""
        outputs = super().get_outputs_for_camera(camera, obb_box)
        for name, path in self._other_lights.items():
            outputs[f"relit_{name}"] = self.relit_view(camera, self.other_light(name, Path(path)), obb_box)
        return outputs

    def other_light(self, name: str, path: Path) -> LightMaps:
        """A light of the scene, filtered."""
        if name not in self._filtered:
            try:
                image = torch.from_numpy(read_latlong(path)).to(self.device)
            except UserError as error:
                raise SceneError(str(error)) from None
            light = make_light(image, self.config)
            self._filtered[name] = light
        return self._filtered[name]

    @torch.no_grad()
    def relit_view(self, camera: Cameras, light: LightMaps, obb_box: OrientedBox | None = None) -> Tensor:
        """sRGB (H, W, 3) of a view under a light."""
        self._relit = light
        try:
            return super().get_outputs_for_camera(camera, obb_box)["rgb_phys"]
        finally:
            self._relit = None


def make_light(image: Tensor, config: RiseSdfModelConfig, rotation: float = 0.0) -> LightMaps:
    """A lat-long map (H, W, 3) as a model's settings filter lights.

    Args:
        image: linear radiance.
        config: of the model.
        rotation: degrees by which it is turned about its upward axis, from column to column to the right.
    """
    light = EnvironmentLight.from_latlong(
        torch.roll(image, round(rotation / 360 * image.shape[1]), dims=1),
        config.light.resolution,
        clamp=config.clamp_lights,
        area="exact" if config.light.exact_solid_angle else "released",
        up=config.lights_up,
    )
    with torch.no_grad():
        return light.to(image.device).build()
