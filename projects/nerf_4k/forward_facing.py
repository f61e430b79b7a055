"""The field of forward-facing scenes as a nerfstudio model, and the stage that trains it alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor
from torch.nn import Parameter

from perception.geometry.rays import NDC
from perception.radiance.distortion import distortion_loss
from perception.radiance.dvgo_stages import progressive_resolutions, put_around_parameters
from perception.radiance.losses import dvgo_losses
from perception.radiance.metrics import psnr
from perception.radiance.mpi import DirectMPIGO, MpiRendering, mpi_resolution
from perception.studio.datamanager import unnormalised
from perception.studio.density import DensitySpace
from perception.studio.dvgo_model import RENDERING
from perception.studio.errors import SceneError
from perception.studio.model import OPAQUE, RadianceModel, RadianceModelConfig
from perception.studio.samplers import PoolSamplerConfig, SamplerConfig, generator
from perception.studio.scene_checks import SceneUse
from perception.studio.stages import Stage
from perception.studio.training_run import Iteration, TrainingRun
from projects.nerf_4k.settings import EncoderSettings

NEAR = 1.0  # distance of the near plane, in front of which nothing is seen
BOX_TOLERANCE = 0.05  # of the shortest side, by which the box of a field from a file may be off
MASK_EVERY = 1000  # steps between two looks for free space, the first one in the middle
BACKGROUNDS = 1 << 23  # where the numbers of the random backgrounds begin, beyond those of epochs


@dataclass
class MpiModelConfig(RadianceModelConfig):
    """DirectMPIGO."""

    _target: type = field(default_factory=lambda: MpiModel)
    stepsize: float = 1.0
    """Distance between samples in planes."""
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    """The field and its stage."""

    sizes: ClassVar[frozenset[str]] = frozenset(
        f"encoder.{name}"
        for name in (
            "num_voxels",
            "mpi_depth",
            "pg_scale",
            "rgbnet_dim",
            "rgbnet_depth",
            "rgbnet_width",
            "act_type",
            "viewbase_pe",
            "spatial_pe",
        )
    )

    def stages(self) -> list[Stage]:
        """The field alone."""
        return [EncoderStage("encoder", self.encoder)]

    def scene_use(self) -> SceneUse:
        """Cameras that all look along -z."""
        return SceneUse(ndc=True)


class MpiModel(RadianceModel):
    """A DirectMPIGO field, which grows while it is trained.

    What a checkpoint needs to rebuild it are buffers: ``stage``, ``num_voxels``, the scene's normalised device
    coordinates ``ndc`` (2,) as their two scales, ``far`` and ``background``.
    """

    config: MpiModelConfig
    field: DirectMPIGO

    def populate_modules(self) -> None:
        """An empty field, until the first step replaces it."""
        super().populate_modules()
        if self.config.encoder.rgbnet_dim < 1:
            raise SceneError("--pipeline.model.encoder.rgbnet-dim must be at least 1")
        box = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
        try:
            mpi_resolution(*box, _growth(self.config.encoder)[0], self.config.encoder.mpi_depth)
        except ValueError as error:
            raise SceneError(f"--pipeline.model.encoder.num-voxels: {error}") from None
        self.field = self.fresh_field()
        for name, value in {
            "num_voxels": torch.tensor(self.field.num_voxels),
            "ndc": torch.ones(2),
            "far": torch.tensor(1.0),
            "background": torch.ones(3),
        }.items():
            self.register_buffer(name, value)

    def fresh_field(self) -> DirectMPIGO:
        """A small field of the settings."""
        return self.make_field(torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]), 4 * self.config.encoder.mpi_depth)

    def make_field(self, box: Tensor, num_voxels: int) -> DirectMPIGO:
        """An empty field in a box (2, 3) of normalised device coordinates."""
        settings = self.config.encoder
        threshold = settings.fast_color_thres
        return DirectMPIGO(
            *box,
            num_voxels=num_voxels,
            mpi_depth=settings.mpi_depth,
            fast_color_thres=self.config.stepsize / settings.mpi_depth / 5 if threshold is None else threshold,
            rgbnet_dim=settings.rgbnet_dim,
            rgbnet_depth=settings.rgbnet_depth,
            rgbnet_width=settings.rgbnet_width,
            act_type=settings.act_type,
            viewbase_pe=settings.viewbase_pe,
            spatial_pe=settings.spatial_pe,
            mask_counts_shift=settings.mask_counts_shift,
        )

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Density, features and colour network."""
        return {
            "density": [self.field.density.grid],
            "k0": [self.field.k0.grid],
            "rgbnet": list(self.field.rgbnet.parameters()),
        }

    def put_field(self, field: DirectMPIGO) -> None:
        """Replace the field; optimisers hold the old one's parameters until they are restarted."""
        self.field = field.to(self.device)
        self.num_voxels.fill_(field.num_voxels)

    def rebuild_field(self, state_dict: Mapping[str, Tensor]) -> None:
        """Give the field the shape that it has in a checkpoint, around the parameter objects that optimisers hold."""
        box = torch.stack([state_dict["field.xyz_min"], state_dict["field.xyz_max"]])
        new = self.make_field(box, int(state_dict["num_voxels"]))
        new.set_mask(torch.zeros_like(state_dict["field.mask_cache.mask"]))
        put_around_parameters(new, self.field)
        new.rgbnet = self.field.rgbnet
        self.field = new.to(self.device)

    # Rendering

    @property
    def coordinates(self) -> NDC:
        """The scene's normalised device coordinates."""
        return NDC(*self.ndc.tolist(), near=NEAR)

    def background_colour(self) -> Tensor:
        """White or black, as the scene was read."""
        return self.background

    def render(self, ray_bundle: RayBundle, background: Tensor | None = None) -> MpiRendering:
        """Render rays (N) on a background, (3,) or (N, 3), by default the one that is shown.

        A ray that does not point towards -z sees nothing.
        """
        rays_o, rays_d, viewdirs = unnormalised(ray_bundle)
        ahead = rays_d[:, 2:] < 0
        origins, directions = self.coordinates.rays(rays_o, torch.where(ahead, rays_d, rays_d.new_tensor([0, 0, -1.0])))
        origins = torch.where(ahead, origins, torch.inf)
        bounds = None
        if ray_bundle.nears is not None and ray_bundle.fars is not None:
            distances = (ray_bundle.nears[:, 0], ray_bundle.fars[:, 0])
            ends = [self.coordinates.parameter(rays_o, viewdirs, distance) for distance in distances]
            bounds = (ends[0], ends[1])
        shown = self.shown_background() if background is None else background
        return self.field(origins, directions, viewdirs, bg=shown, stepsize=self.config.stepsize, bounds=bounds)

    def density_space(self) -> DensitySpace:
        """The field's box, in normalised device coordinates."""
        return DensitySpace(torch.stack([self.field.xyz_min, self.field.xyz_max]), self.coordinates)

    @torch.no_grad()
    def density_at(self, points: Tensor) -> Tensor:
        """Density (N,) at points (N, 3), per unit of z' along a ray that is parallel to it; rendering takes steps from
        plane to plane for as long on slanted rays. 0 where it skips a sample."""
        field, stepsize = self.field, self.config.stepsize
        inside = ((points >= field.xyz_min) & (points <= field.xyz_max)).all(-1)
        where = (inside & field.mask_cache(points)).nonzero()[:, 0]
        shifted = field.density(points[where]) + field.act_shift(points[where])
        seen = field.activate(shifted, interval=stepsize * field.voxel_size_ratio)
        steps = int((field.mpi_depth - 1) / stepsize)  # over the 2 units from the near plane to infinity
        sigma = F.softplus(shifted) * stepsize * field.voxel_size_ratio * steps / 2
        return points.new_zeros(len(points)).index_put((where,), sigma * (seen > field.fast_color_thres))

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Any]:
        """Render rays (N): ``rgb`` (N, 3), ``accumulation`` (N, 1), ``depth`` (N, 1) in scene units along the ray, and
        that of the scene's far end where no more than half of a ray is stopped. In training the typed rendering as
        well."""
        rendering = self.render(ray_bundle)
        outputs = {"rgb": rendering.rgb_marched, **self.shape_of(rendering, ray_bundle)}
        return {**outputs, RENDERING: rendering} if self.training else outputs

    def shape_of(self, rendering: MpiRendering, ray_bundle: RayBundle) -> dict[str, Tensor]:
        """``accumulation`` and ``depth`` (N, 1) of rendered rays."""
        rays_o, _, viewdirs = unnormalised(ray_bundle)
        opacity = 1 - rendering.alphainv_last.detach()
        # Places between the planes are even in disparity: 0 on the near plane, 1 at infinity.
        place = (rendering.depth / opacity.clamp(min=1e-6) * rendering.num_steps - 0.5) / (rendering.num_steps - 1)
        behind = (NEAR / (1 - place).clamp(min=NEAR / float(self.far))).clamp(max=float(self.far))  # along -z
        across = (-viewdirs[:, 2]).clamp(min=1e-3)
        depth = torch.where(opacity > OPAQUE, behind, self.far)
        return {"accumulation": opacity[:, None], "depth": ((depth + rays_o[:, 2]) / across)[:, None]}

    def get_loss_dict(self, outputs: dict, batch: dict, metrics_dict: dict | None = None) -> dict[str, Tensor]:
        """Squared error of colours: what a batch of evaluation is measured by. A stage has its own losses."""
        return {"rgb_loss": F.mse_loss(outputs["rgb"], self.target(batch))}

    # What the decoder takes

    def small_picture(self, rendering: MpiRendering) -> Tensor:
        """Colours (N, 3) without a background."""
        return rendering.rgb_feature

    def small_depth(self, rendering: MpiRendering) -> Tensor:
        """Places between the planes (N,), in [0, 1)."""
        return rendering.depth

    def distortion(self, rendering: MpiRendering) -> Tensor:
        """Distortion loss of rendered rays."""
        return distortion_loss(rendering.weights, rendering.s, 1 / rendering.num_steps, rendering.ray_id)

    # Training

    def see_scene(self, run: TrainingRun) -> Tensor:
        """Take over what belongs to the scene; its box (2, 3) in normalised device coordinates."""
        manager, cameras = run.manager, run.manager.train_dataset.cameras
        first = cameras[0]
        coordinates = NDC.of_camera(float(first.fx), float(first.fx), int(first.width), int(first.height), near=NEAR)
        self.ndc.copy_(torch.tensor([coordinates.x_scale, coordinates.y_scale]))
        self.far.fill_(float(manager.depth_range.far))
        self.background.copy_(manager.background)
        return coordinates.box((rays_o, rays_d) for _, rays_o, rays_d, _ in manager.training_views())

    def take_field(self, run: TrainingRun, loaded: DirectMPIGO) -> None:
        """Go on with the field of a file.

        Raises:
            SceneError: its box is another than that of the scene's cameras: its poses were read in another way.
        """
        own = self.see_scene(run).to(loaded.xyz_min)
        off = (torch.stack([loaded.xyz_min, loaded.xyz_max]) - own).abs().max() / (own[1] - own[0]).min()
        if float(off) > BOX_TOLERANCE:
            raise SceneError(
                f"--pipeline.model.encoder-weights: its box ends {float(off):.0%} of a side away from that of these "
                "cameras: it was trained on other views, another size of images, or other poses"
            )
        self.put_field(loaded)

    def start_patches(self, run: TrainingRun, start: int, sampler: SamplerConfig) -> None:
        """Train on patches of all images."""
        run.manager.use(sampler, start=start)


class EncoderStage(Stage[MpiModel, EncoderSettings]):
    """Trains the field on rays of all images, each once per epoch."""

    def start(self, run: TrainingRun[MpiModel]) -> None:
        model = run.model
        box = model.see_scene(run)
        model.put_field(model.make_field(box, _growth(self.settings)[0]))
        run.restart("density", "k0", skip_zero_grad=True)
        run.restart("rgbnet")
        self.take_up(run)

    def take_up(self, run: TrainingRun[MpiModel]) -> None:
        run.manager.use(PoolSamplerConfig(), start=self.span.start)

    def before_step(self, run: TrainingRun[MpiModel], local: int) -> None:
        field = run.model.field
        if (local + MASK_EVERY // 2) % MASK_EVERY == 0:
            field.update_occupancy_cache()
        if local in self.settings.pg_scale:
            number = self.settings.pg_scale.index(local)
            field.scale_volume_grid(_growth(self.settings)[number + 1])
            field.act_shift.grid.data -= self.settings.decay_after_scale
            run.model.num_voxels.fill_(field.num_voxels)
            run.restart("density", "k0", skip_zero_grad=True)
            run.restart("rgbnet")

    def train_iteration(self, run: TrainingRun[MpiModel]) -> Iteration:
        model, settings = run.model, self.settings
        rays, batch = run.manager.next_train(run.step)
        target = model.target(batch)
        background = None
        if settings.random_background:
            background = torch.rand(len(target), 3, generator=generator(run.manager.seed, BACKGROUNDS + run.step, 1))
            background = background.to(model.device)
        rendering = model.render(rays, background)
        losses = dvgo_losses(
            rendering,
            target,
            weight_entropy_last=settings.weight_entropy_last,
            weight_rgbper=settings.weight_rgbper,
        )
        if settings.weight_distortion:
            losses["distortion_loss"] = settings.weight_distortion * model.distortion(rendering)
        loss = torch.stack([*losses.values()]).sum()
        run.zero_grad()
        run.backward(loss)
        self._add_total_variation(run, len(target))
        run.optimizer_step()
        return run.end_iteration(loss, losses, {"psnr": psnr(rendering.rgb_marched.detach(), target)})

    def _add_total_variation(self, run: TrainingRun[MpiModel], rays: int) -> None:
        field, settings = run.model.field, self.settings
        dense = self.span.local(run.step) <= settings.tv_dense_before
        for weight, add in (
            (settings.weight_tv_density, field.density_total_variation_add_grad),
            (settings.weight_tv_k0, field.k0_total_variation_add_grad),
        ):
            if weight:
                add(weight / rays, dense=dense, released_axes=settings.tv_released_axes)

    def rebuild(self, model: MpiModel, state_dict: Mapping[str, Tensor]) -> None:
        model.rebuild_field(state_dict)


def _growth(settings: EncoderSettings) -> list[int]:
    """Numbers of voxels from the start of the stage to its end."""
    return progressive_resolutions(settings.num_voxels, len(settings.pg_scale))
