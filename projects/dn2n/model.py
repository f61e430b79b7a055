"""DN2N as a nerfstudio model: IBRNet rendering from a bank of source views, trained on perturbed ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn import Parameter

from perception.engine.errors import UserError
from perception.geometry.cameras import switch_axes
from perception.radiance.metrics import psnr
from perception.studio.datamanager import unnormalised
from perception.studio.errors import SceneError
from perception.studio.model import RadianceModel, RadianceModelConfig
from perception.studio.scene_checks import SceneUse
from perception.studio.stages import Stage
from projects.dn2n.aggregation import IBRNet
from projects.dn2n.bank import SourceBank
from projects.dn2n.features import ResUNet
from projects.dn2n.losses import colour_loss, neighbour_loss, self_depth_loss, self_view_loss, to_neighbour
from projects.dn2n.perturbation import seeded
from projects.dn2n.projection import camera_rays
from projects.dn2n.rendering import CoarseAndFine, Rays, Renderer, Sources
from projects.dn2n.settings import NetworkSettings, TrainingSettings
from projects.dn2n.sources import SourceSettings, evaluation_sources
from projects.dn2n.training_views import TrainingSample

CHUNK = 4  # images whose features are computed at once


def make_renderer(network: NetworkSettings) -> Renderer:
    """IBRNet of these sizes."""
    fine = None
    if network.fine_samples:
        total = network.coarse_samples + network.fine_samples
        fine = IBRNet(network.features, total, network.anti_alias_pooling)
    return Renderer(
        ResUNet(network.features, network.features, network.widths, network.blocks),
        IBRNet(network.features, network.coarse_samples, network.anti_alias_pooling),
        fine,
        inverse=network.inverse_depth,
        white=network.white,
        min_seen=network.min_seen,
    )


@dataclass
class DN2NModelConfig(RadianceModelConfig):
    """Settings of :class:`DN2NModel`."""

    _target: type = field(default_factory=lambda: DN2NModel)
    eval_num_rays_per_chunk: int = 4096
    """Rays that are rendered at once."""
    weights: Path | None = None
    """IBRNet's weights, as published or converted, to start from."""
    near: float | None = None
    """Smallest depth along the viewing axis, instead of the scenes' own."""
    far: float | None = None
    """Largest depth along the viewing axis, instead of the scenes' own."""
    exclude_target: bool = True
    """Render a view without its own image, where it is a training view."""
    shown_scene: int = 0
    """Of several scenes, the one that cameras show which do not say a scene: those of paths and of the viewer."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    """Sizes of the networks."""
    sources: SourceSettings = field(default_factory=SourceSettings)
    """Choice of source views."""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    """The training phase."""

    free_on_resume: ClassVar[frozenset[str]] = RadianceModelConfig.free_on_resume | {
        "weights",
        "exclude_target",
        "shown_scene",
    }

    def stages(self) -> list[Stage]:
        """One."""
        return [Stage("training", self.training)]

    def scene_use(self) -> SceneUse:
        """Any scene, with near and far that fit it."""
        return SceneUse((), self.near, self.far)


class TargetView(NamedTuple):
    """Where a picture is taken."""

    camera: Tensor  # (34,), of which only the pose counts
    scene: int


class DN2NModel(RadianceModel):
    """IBRNet on the views of a :class:`~projects.dn2n.bank.SourceBank`, which the pipeline gives it."""

    config: DN2NModelConfig

    def populate_modules(self) -> None:
        """The networks, with the weights that the settings name."""
        super().populate_modules()
        self.renderer = make_renderer(self.config.network)
        if self.config.weights is not None:
            load_start(self.renderer, self.config.weights)
        # Neither is part of checkpoints.
        self._bank: list[SourceBank] = []
        self._prepared: dict[int, Sources] = {}

    @property
    def bank(self) -> SourceBank:
        """The views that pictures are rendered from."""
        return self._bank[0]

    def attach(self, bank: SourceBank) -> None:
        """Render from these views from now on."""
        self._bank, self._prepared = [bank], {}

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """The feature network learns faster than the others."""
        networks = [self.renderer.net_coarse, self.renderer.net_fine]
        return {
            "feature_net": list(self.renderer.feature_net.parameters()),
            "networks": [weight for network in networks if network is not None for weight in network.parameters()],
        }

    def train(self, mode: bool = True):
        """Features of the bank's views do not outlive the weights they were made with."""
        if mode:
            self._prepared = {}
        return super().train(mode)

    # Training

    def training_losses(
        self, sample: TrainingSample, rays: RayBundle, step: int
    ) -> tuple[CoarseAndFine, dict[str, Tensor], dict[str, Tensor]]:
        """Rendering of the first source set, losses, and metrics of one step."""
        settings = self.config.training
        sample = sample.to(self.device)
        origins, directions, _ = unnormalised(rays)
        target = Rays(origins, directions, sample.target_camera, sample.near, sample.far)
        sets = [self.renderer.sources(images, cameras) for images, cameras in zip(sample.images, sample.cameras)]
        # The same places of samples for all sets: identical sources give identical colours.
        rendered = [self.renderer(target, views, generator=seeded(sample.seed, 3)) for views in sets]
        losses = {"rgb_loss": torch.stack([colour_loss(out, sample.colours) for out in rendered]).sum()}
        ramp = min(1.0, step / max(1.0, settings.ramp * settings.iters))
        first = rendered[0].best
        if len(rendered) == 2 and settings.weight_self:
            losses["self_view_loss"] = ramp * settings.weight_self * self_view_loss(first, rendered[1].best)
        if len(rendered) == 2 and settings.weight_self_depth:
            losses["self_depth_loss"] = ramp * settings.weight_self_depth * self_depth_loss(first, rendered[1].best)
        if settings.weight_neighbour:
            term = self._neighbour_term(sample, target, sets[0], rendered[0])
            losses["neighbour_loss"] = ramp * settings.weight_neighbour * term
        metrics = {
            "psnr": psnr(first.rgb.detach(), sample.colours),
            "usable_rays": first.mask.float().mean(),
        }
        return rendered[0], losses, metrics

    def _neighbour_term(self, sample: TrainingSample, rays: Rays, sources: Sources, rendered: CoarseAndFine) -> Tensor:
        first = rendered.best
        warped = to_neighbour(rays.origins, rays.directions, first.depth, sample.neighbour_camera)
        inside = warped.inside.nonzero()[:, 0]
        if not len(inside):
            return first.rgb.sum() * 0
        warped = type(warped)(*(part[inside] for part in warped))
        origins, directions = camera_rays(sample.neighbour_camera, warped.pixels)
        other = Rays(origins, directions, sample.neighbour_camera, sample.near, sample.far)
        seen = self.renderer(other, sources, generator=seeded(sample.seed, 5)).best
        return neighbour_loss(first.rgb[inside], seen.rgb, warped, seen.depth, self.config.training.depth_tolerance)

    # Rendering

    def background_colour(self) -> Tensor:
        """What rays show that meet nothing."""
        return torch.full((3,), float(self.config.network.white), device=self.device)

    def prepared(self, scene: int) -> Sources:
        """The source views of a scene with their features, which are computed once."""
        if scene not in self._prepared:
            images, cameras = self.bank.source_views(scene)
            parts = [
                self.renderer.sources(part.to(self.device), vectors.to(self.device))
                for part, vectors in zip(images.split(CHUNK), cameras.split(CHUNK))
            ]
            together = Sources(*(torch.cat(pieces) for pieces in zip(*parts)))
            if self.training:
                return together
            self._prepared[scene] = together
        return self._prepared[scene]

    def chosen_sources(self, view: TargetView) -> Sources:
        """The nearest source views of a picture.

        Raises:
            SceneError: there are fewer than two.
        """
        sources = self.prepared(view.scene)
        poses = sources.cameras[:, 18:34].unflatten(-1, (4, 4))
        pose = view.camera[18:34].view(4, 4).to(poses)
        wanted = self.config.sources
        chosen = evaluation_sources(
            pose,
            poses,
            wanted.count,
            exclude_target=self.config.exclude_target,
            released_count=wanted.released_count,
        )
        if len(chosen) < 2:
            raise SceneError(
                f"a view of {self.bank.scenes[view.scene].name} has {len(chosen)} source views; it takes at least 2"
            )
        return sources.select(chosen)

    def render(self, view: TargetView, origins: Tensor, directions: Tensor, bounds: tuple | None = None) -> dict:
        """Outputs of rays (N, 3) of one view; directions have length 1 along the viewing axis.

        ``coverage`` (N, 1) is 1 where enough of a ray is seen by several source views to trust its colour.
        """
        sources = self.chosen_sources(view)
        span = self.bank.scenes[view.scene]
        near, far = (span.near, span.far) if bounds is None else bounds
        rays = Rays(origins, directions, view.camera.to(origins), near, far)
        found = [self.renderer(part, sources).best for part in rays.chunks(self.config.eval_num_rays_per_chunk)]
        return {
            "rgb": torch.cat([part.rgb for part in found]),
            "depth": torch.cat([part.depth for part in found])[:, None],
            "accumulation": torch.cat([part.accumulation for part in found])[:, None],
            "coverage": torch.cat([part.mask for part in found])[:, None].float(),
        }

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box=None) -> dict[str, Tensor]:
        """Outputs (H, W, ...) of a camera (1). Inside a crop, near and far are those of the box."""
        camera = camera.to(self.device)
        bundle = camera.generate_rays(camera_indices=0, keep_shape=True, obb_box=obb_box)
        origins, directions, _ = (part.reshape(-1, 3) for part in unnormalised(bundle))
        view = TargetView(pose_vector(camera.camera_to_worlds.reshape(-1, 3, 4)[0]), self._scene_of(camera))
        bounds, inside = None, None
        if obb_box is not None and bundle.nears is not None and bundle.fars is not None:
            span = self.bank.scenes[view.scene]
            near = bundle.nears.reshape(-1).float().clamp(span.near, span.far)
            far = bundle.fars.reshape(-1).float().clamp(span.near, span.far)
            inside = far > near
            bounds = (near, torch.where(inside, far, near + 1e-3 * span.near))
        outputs = self.render(view, origins, directions, bounds)
        outputs["rgb"] = outputs["rgb"].clamp(0, 1)
        if inside is not None:
            outputs["rgb"] = torch.where(inside[:, None], outputs["rgb"], self.shown_background())
            outputs["accumulation"] = outputs["accumulation"] * inside[:, None]
        return {name: value.view(*bundle.shape, -1) for name, value in outputs.items()}

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:
        """Outputs of rays (N) of any training views, view by view: what exporters ask for."""
        origins, directions, _ = unnormalised(ray_bundle)
        cameras = ray_bundle.camera_indices[:, 0].cpu()
        outputs: dict[str, Tensor] = {}
        for number in cameras.unique().tolist():
            chosen = (cameras == number).nonzero()[:, 0].to(origins.device)
            view = TargetView(self.bank.cameras[number], self.bank.scene_of(number))
            for name, value in self.render(view, origins[chosen], directions[chosen]).items():
                whole = outputs.setdefault(name, value.new_zeros(len(cameras), value.shape[1]))
                outputs[name] = whole.index_put((chosen,), value)
        return outputs

    def _scene_of(self, camera: Cameras) -> int:
        stated = (camera.metadata or {}).get("scene")
        number = self.config.shown_scene if stated is None else int(stated.flatten()[0])
        if not 0 <= number < len(self.bank.scenes):
            raise SceneError(
                f"--pipeline.model.shown-scene {number}: scenes are numbered from 0 to {len(self.bank.scenes) - 1}"
            )
        return number


def pose_vector(pose: Tensor) -> Tensor:
    """A camera vector (34,) of which only the pose is set, from one (3, 4) with OpenGL axes."""
    full = torch.eye(4, device=pose.device)
    full[:3] = pose.float()
    vector = torch.zeros(34, device=pose.device)
    vector[18:] = switch_axes(full).flatten()
    return vector


def load_start(renderer: Renderer, path: Path) -> None:
    """Give the networks the weights of a file of IBRNet's, or of ours.

    Raises:
        SceneError: it cannot be read, or has other sizes.
    """
    from perception.engine.checkpoint import load_checkpoint_file  # imports MMEngine
    from projects.dn2n.converter import network_weights

    try:
        weights = network_weights(load_checkpoint_file(path))
        own = renderer.state_dict()
        wrong = [name for name in own if name not in weights or weights[name].shape != own[name].shape]
        if wrong or len(weights) != len(own):
            raise UserError(
                f"{path} holds an IBRNet of other sizes than --pipeline.model.network says, {(wrong or ['?'])[0]} first"
            )
        renderer.load_state_dict(weights)
    except UserError as error:
        raise SceneError(str(error)) from error
    CONSOLE.log(f"Starting from the weights of {path}")
