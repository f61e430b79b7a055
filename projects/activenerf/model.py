"""ActiveNeRF as a nerfstudio model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.model_components.ray_generators import RayGenerator
from nerfstudio.utils import colormaps
from torch import Tensor
from torch.nn import Parameter

from perception.geometry.rays import NDC
from perception.radiance.metrics import rank_correlation, sparsification_error
from perception.studio.datamanager import unnormalised
from perception.studio.density import DensitySpace
from perception.studio.errors import SceneError
from perception.studio.model import OPAQUE, RadianceModel, RadianceModelConfig
from perception.studio.scene_checks import SceneUse
from perception.studio.stages import Stage
from projects.activenerf.acquisition import Acquisition
from projects.activenerf.converter import read_fields
from projects.activenerf.field import ActiveNeRFField
from projects.activenerf.losses import Fallback, activenerf_losses
from projects.activenerf.pools import PoolDataManager, Pools, open_pools
from projects.activenerf.rendering import RenderedPair, Rendering, Sampling, render_rays
from projects.activenerf.scoring import legacy_camera
from projects.activenerf.settings import TrainingSettings, check_acquisition, check_precrop
from projects.activenerf.training_stage import ActiveStage

NEAR_PLANE = 1.0  # of normalised device coordinates
RENDERING = "rendering"


@dataclass
class ActiveNerfModelConfig(RadianceModelConfig):
    """NeRF with uncertainty, which acquires views while it is trained."""

    _target: type = field(default_factory=lambda: ActiveNerfModel)
    num_coarse_samples: int = 64
    """Samples per ray of the coarse network."""
    num_importance_samples: int = 128
    """Samples that the fine network has besides."""
    lindisp: bool = False
    """Coarse samples even in disparity."""
    perturb: bool = True
    """Move samples at random in training."""
    raw_noise_std: float = 0.0
    """Noise on the density before its activation, in training; 1 for forward-facing scenes."""
    depth: int = 8
    """Layers of each network."""
    width: int = 256
    """Their width."""
    skips: tuple[int, ...] = (4,)
    """Layers behind which the network sees the position once more."""
    multires: int = 10
    """Octaves in the encoding of positions."""
    multires_views: int = 4
    """Octaves in the encoding of directions."""
    beta_min: float = 0.01
    """Smallest variance of a point's colour."""
    w_reg: float = 0.01
    """Weight of the mean density; 0 for forward-facing scenes."""
    uncert_fallback: Fallback = "batch"
    """What is trained with the squared error where a ray meets nothing at all, so that it has no variance: the whole
    batch (the released code), the ray, or nothing, which makes such a ray outweigh all others."""
    use_ndc: bool = False
    """Normalised device coordinates, for forward-facing scenes."""
    legacy_rays: bool = False
    """Rays through the upper left corners of pixels instead of their centres, as the released code has them."""
    near: float | None = None
    """Smallest depth, instead of what the scene says; not with normalised device coordinates."""
    far: float | None = None
    """Largest depth, likewise."""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    """The stage of training."""
    acquisition: Acquisition = "uncertainty"
    """Which candidates are acquired: those that would reduce the uncertainty most, any, or those whose cameras are
    farthest from all that there are."""
    active_iters: tuple[int, ...] = (100_000, 200_000, 300_000, 400_000)
    """Steps before which views are acquired; none trains on the initial views alone."""
    choose_k: int = 4
    """Views that are acquired each time."""
    ds_rate: int = 2
    """Every so-manieth row and column of a candidate is scored."""
    weights: Path | None = None
    """Start the networks from this file: the authors' checkpoint, or a converted one."""
    eval_num_rays_per_chunk: int = 4096
    """Rays that are rendered at once."""

    free_on_resume: ClassVar[frozenset[str]] = RadianceModelConfig.free_on_resume | {"weights"}
    views_may_be_added: ClassVar[bool] = True

    def stages(self) -> list[Stage]:
        """One."""
        return [ActiveStage("training", self.training)]

    def scene_use(self) -> SceneUse:
        """Near and far, or cameras that all look along -z."""
        return SceneUse(ndc=True) if self.use_ndc else SceneUse(near=self.near, far=self.far, bounds_rays=True)


class ActiveNerfModel(RadianceModel):
    """A coarse and a fine network. What a checkpoint needs besides are buffers: ``stage``, the scene's ``background``
    (3,), its near and far ``depth_range`` (2,) and the scales ``ndc`` (2,); of N views the ``view_keys``,
    ``view_acquired``, ``view_rank`` and ``view_scores`` (see :class:`~projects.activenerf.pools.Pools`);
    ``fallbacks``, the share of rays that fell back summed over steps."""

    config: ActiveNerfModelConfig

    def populate_modules(self) -> None:
        """Untrained networks."""
        _check(self.config)
        super().populate_modules()
        self.field_coarse, self.field_fine = self._make_field(), self._make_field()
        for name, value in {
            "background": torch.ones(3),
            "depth_range": torch.tensor([2.0, 6.0]),
            "ndc": torch.ones(2),
            "fallbacks": torch.tensor(0.0, dtype=torch.float64),
        }.items():
            self.register_buffer(name, value)
        for name, value in zip(Pools._fields, open_pools([], [])):
            self.register_buffer(f"view_{name}", value)

    def _make_field(self) -> ActiveNeRFField:
        config = self.config
        return ActiveNeRFField(
            config.depth, config.width, config.skips, config.multires, config.multires_views, config.beta_min
        )

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Both networks learn at one rate."""
        return {"fields": [*self.field_coarse.parameters(), *self.field_fine.parameters()]}

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        """The hooks of the stage, and the rays of the settings."""
        manager = attributes.pipeline.datamanager
        if not isinstance(manager, PoolDataManager):
            raise SceneError(f"the method needs a PoolDataManager, not {type(manager).__name__}")
        if self.config.legacy_rays:
            for name in ("train_ray_generator", "eval_ray_generator"):
                cameras = getattr(manager, name).cameras
                setattr(manager, name, RayGenerator(legacy_camera(cameras)).to(manager.device))
        return super().get_training_callbacks(attributes)

    # Views

    @property
    def pools(self) -> Pools:
        """Which views are trained on; its tensors are the model's."""
        return Pools(*(getattr(self, f"view_{name}") for name in Pools._fields))

    def put_pools(self, pools: Pools) -> None:
        """Take over the state of the views."""
        for name, value in zip(Pools._fields, pools):
            setattr(self, f"view_{name}", value.to(self.device))

    def start_from_file(self) -> None:
        """Take the networks of the file that the settings name, if they name one."""
        path = self.config.weights
        if path is None:
            return
        for own, loaded in zip((self.field_coarse, self.field_fine), read_fields(path)):
            if own.settings() != loaded.settings():
                raise SceneError(
                    f"--pipeline.model.weights: {path} holds networks of {loaded.settings()}, not of {own.settings()}"
                )
            own.load_state_dict(loaded.state_dict())

    # Rendering

    @property
    def coordinates(self) -> NDC:
        """The scene's normalised device coordinates."""
        return NDC(*self.ndc.tolist(), near=NEAR_PLANE)

    def density_space(self) -> DensitySpace:
        """The scene's box, in the world, or that of normalised device coordinates."""
        if self.config.use_ndc:
            return DensitySpace(self.scene_box.aabb.new_tensor([[-1.0] * 3, [1.0] * 3]).float(), self.coordinates)
        return DensitySpace(self.scene_box.aabb.float())

    @torch.no_grad()
    def density_at(self, points: Tensor) -> Tensor:
        """The fine network's density (N,) at points (N, 3), in 1 / unit of the space."""
        return F.relu(self.field_fine(points, points.new_tensor([0.0, 0.0, -1.0]).expand_as(points))[:, 3])

    def background_colour(self) -> Tensor:
        """As the scene was read."""
        return self.background

    def seen_by(self, camera: Cameras) -> Cameras:
        """A camera as the settings have its rays."""
        return legacy_camera(camera) if self.config.legacy_rays else camera

    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Tensor]:
        """Render a camera (1): pictures (H, W, C)."""
        return super().get_outputs_for_camera(self.seen_by(camera), obb_box)

    def render(self, ray_bundle: RayBundle, random: torch.Generator | None = None) -> RenderedPair:
        """Render rays (N). With a generator samples move and densities are noisy as in training.

        In normalised device coordinates a ray that does not point towards -z sees nothing, nor does one whose own near
        and far leave nothing of the scene.
        """
        rays_o, rays_d, viewdirs = unnormalised(ray_bundle)
        near, far, seen = self._bounds(ray_bundle, rays_o, rays_d, viewdirs)
        if self.config.use_ndc:
            rays_o, rays_d = self.coordinates.rays(
                rays_o, torch.where(seen[:, None], rays_d, rays_d.new_tensor([0, 0, -1.0]))
            )
        config = self.config
        pair = render_rays(
            self.field_coarse,
            self.field_fine,
            rays_o,
            rays_d,
            viewdirs,
            near,
            far,
            Sampling(config.num_coarse_samples, config.num_importance_samples, config.perturb, config.lindisp),
            background=self.shown_background(),
            noise_std=config.raw_noise_std,
            random=random,
        )
        if bool(seen.all()):
            return pair
        return RenderedPair(*(_hidden(part, seen, self.shown_background()) for part in pair))

    def _bounds(
        self, ray_bundle: RayBundle, rays_o: Tensor, rays_d: Tensor, viewdirs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Where rays (N) begin and end, as parameters, and which see anything."""
        ndc = self.config.use_ndc
        seen = rays_d[:, 2] < 0 if ndc else torch.ones_like(rays_d[:, 2], dtype=torch.bool)
        scene = self.depth_range.new_tensor([0, 1]) if ndc else self.depth_range
        ends = [bound.expand(len(rays_o)) for bound in scene]
        if ray_bundle.nears is None or ray_bundle.fars is None:
            return ends[0], ends[1], seen
        own = [distance[:, 0].float() for distance in (ray_bundle.nears, ray_bundle.fars)]
        if ndc:
            own = [self.coordinates.parameter(rays_o, viewdirs, distance) for distance in own]
        else:
            own = [distance / rays_d.norm(dim=-1) for distance in own]
        near, far = torch.maximum(ends[0], own[0]), torch.minimum(ends[1], own[1])
        seen = seen & (near < far)
        return torch.where(seen, near, ends[0]), torch.where(seen, far, ends[1]), seen

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Any]:
        """Render rays (N): ``rgb`` and ``rgb_coarse`` (N, 3); ``uncert`` (N, 1), the variance of the fine network's
        colour, and ``uncert_std``, its root, both in units of a colour between 0 and 1; ``accumulation``; ``depth`` in
        scene units along the ray, that of the far end where no more than half of a ray is stopped."""
        pair = self.render(ray_bundle)
        fine = pair.fine
        outputs: dict[str, Any] = {
            "rgb": fine.rgb,
            "rgb_coarse": pair.coarse.rgb,
            "uncert": fine.uncert[:, None],
            "uncert_std": fine.uncert.clamp(min=0).sqrt()[:, None],
            "accumulation": fine.acc[:, None].detach(),
            "depth": self._distance(fine, ray_bundle)[:, None],
        }
        return {**outputs, RENDERING: pair} if self.training else outputs

    def _distance(self, fine: Rendering, ray_bundle: RayBundle) -> Tensor:
        """Of what stops rays (N), in scene units along them."""
        rays_o, rays_d, viewdirs = unnormalised(ray_bundle)
        opacity, far = fine.acc.detach(), self.depth_range[1]
        place = fine.depth.detach() / opacity.clamp(min=1e-6)
        if self.config.use_ndc:
            behind = (NEAR_PLANE / (1 - place).clamp(min=NEAR_PLANE / float(far))).clamp(max=float(far))  # along -z
            behind = torch.where(opacity > OPAQUE, behind, far)
            return (behind + rays_o[:, 2]) / (-viewdirs[:, 2]).clamp(min=1e-3)
        return torch.where(opacity > OPAQUE, place, far) * rays_d.norm(dim=-1)

    # Losses and measures

    def get_loss_dict(self, outputs: dict, batch: dict, metrics_dict: dict | None = None) -> dict[str, Tensor]:
        """The losses of both networks."""
        pair, target = outputs.get(RENDERING), self.target(batch)
        return {"rgb_loss": F.mse_loss(outputs["rgb"], target)} if pair is None else self.losses(pair, target)

    def losses(self, pair: RenderedPair, target: Tensor) -> dict[str, Tensor]:
        """The losses of rendered rays (N) for colours (N, 3)."""
        config = self.config
        return activenerf_losses(pair.coarse, pair.fine, target, w_reg=config.w_reg, fallback=config.uncert_fallback)

    def get_image_metrics_and_images(self, outputs: dict, batch: dict) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Besides image quality: ``ause`` and ``spearman``, of the variance and the squared error of pixels
        that no mask excludes, and their mean variance ``uncert``. The picture ``uncert`` shows the standard deviation
        beside the error, both from 0 to 1."""
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        error = (outputs["rgb"] - self.target(batch)).square().mean(-1)
        variance = outputs["uncert"][..., 0]
        both = torch.cat([outputs["uncert_std"], error.sqrt()[..., None]], 1).clamp(0, 1)
        if "mask" in batch:
            seen = batch["mask"][..., 0].bool().to(error.device)
            error, variance = error[seen], variance[seen]
        metrics["ause"] = sparsification_error(variance, error)
        metrics["spearman"] = rank_correlation(variance, error)
        metrics["uncert"] = float(variance.mean())
        return metrics, {**images, "uncert": colormaps.apply_colormap(both)}


def _hidden(rendering: Rendering, seen: Tensor, background: Tensor) -> Rendering:
    """The same where some rays see nothing but the background."""
    zeroed = {name: torch.where(seen, getattr(rendering, name), 0) for name in ("uncert", "acc", "depth", "disp")}
    weights = rendering.weights * seen[:, None]
    return rendering._replace(rgb=torch.where(seen[:, None], rendering.rgb, background), weights=weights, **zeroed)


def _check(config: ActiveNerfModelConfig) -> None:
    for name, least in (
        ("num_coarse_samples", 3),
        ("num_importance_samples", 1),
        ("depth", 1),
        ("width", 2),
    ):
        if getattr(config, name) < least:
            option = name.replace("_", "-")
            raise SceneError(f"--pipeline.model.{option} must be at least {least}, not {getattr(config, name)}")
    for name in ("beta_min", "w_reg", "raw_noise_std"):
        if not 0 <= getattr(config, name) < float("inf"):
            option = name.replace("_", "-")
            raise SceneError(f"--pipeline.model.{option} must not be negative, but {getattr(config, name)}")
    if config.use_ndc and (config.near is not None or config.far is not None):
        raise SceneError(
            "--pipeline.model.near and --pipeline.model.far have no effect with normalised device coordinates, which "
            "reach from 1 to infinity: add --pipeline.model.use-ndc False"
        )
    if config.use_ndc and config.lindisp:
        raise SceneError("--pipeline.model.lindisp: normalised device coordinates are even in disparity already")
    check_precrop(config.training)
    check_acquisition(config.training.iters, config.active_iters, config.choose_k, config.ds_rate)
