"""DirectVoxGO as a nerfstudio model: a voxel field that is replaced and grows from stage to stage.

Methods that start from such a field subclass the model, and list further stages after :class:`~perception.studio.
dvgo_stages.CoarseStage` and :class:`~perception.studio.dvgo_stages.FineStage`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor
from torch.nn import Parameter

from perception.radiance.dvgo import DirectVoxGO, DvgoRendering
from perception.radiance.dvgo_settings import CoarseSettings, FineSettings
from perception.radiance.dvgo_stages import make_fine
from perception.radiance.grids import grid_resolution
from perception.radiance.losses import dvgo_losses
from perception.studio.datamanager import ray_range, unnormalised
from perception.studio.density import DensitySpace
from perception.studio.dvgo_stages import CoarseStage, FineStage
from perception.studio.errors import SceneError
from perception.studio.model import OPAQUE, RadianceModel, RadianceModelConfig
from perception.studio.scene_checks import SceneUse
from perception.studio.stages import Stage

RENDERING = "rendering"
"""Key of nerfstudio's dictionary of outputs under which a training step finds the typed rendering."""


@dataclass
class DvgoModelConfig(RadianceModelConfig):
    """DirectVoxGO's two stages."""

    _target: type = field(default_factory=lambda: DvgoModel)
    near: float | None = None
    """Smallest depth of the scene; by default what the scene says or its cameras suggest (2 for synthetic NeRF)."""
    far: float | None = None
    """Largest depth; by default what the scene says or its cameras suggest (6 for synthetic NeRF)."""
    stepsize: float = 0.5
    """Distance between samples in voxels."""
    align_corners: bool = True
    """Voxel centres on the faces of the box, as in DirectVoxGO."""
    coarse: CoarseSettings = field(default_factory=CoarseSettings)
    """First stage."""
    fine: FineSettings = field(default_factory=FineSettings)
    """Second stage."""

    sizes: ClassVar[frozenset[str]] = frozenset(
        {
            "coarse.num_voxels",
            "fine.num_voxels",
            "fine.pg_scale",
            "fine.rgbnet_dim",
            "fine.rgbnet_depth",
            "fine.rgbnet_width",
            "fine.viewbase_pe",
        }
    )
    refused: ClassVar[Mapping[str, str]] = {
        "pipeline.datamanager.sampler": "stages draw from all pixels first, then from those whose rays hit something",
        **dict.fromkeys(
            ("optimizers.density.optimizer.skip_zero_grad", "optimizers.k0.optimizer.skip_zero_grad"),
            "the coarse stage updates all voxels, later ones those that have a gradient",
        ),
    }

    def stages(self) -> list[Stage]:
        """The coarse field, then the fine one."""
        return [CoarseStage("coarse", self.coarse), FineStage("fine", self.fine)]

    def scene_use(self) -> SceneUse:
        """A bounded scene that the cameras surround."""
        return SceneUse((), self.near, self.far, surrounded=True, bounds_rays=True)


class DvgoModel(RadianceModel):
    """A DirectVoxGO field, which changes shape from stage to stage.

    What a checkpoint needs to rebuild it are buffers: ``stage``, ``num_voxels``, ``depth_range``, ``background``, and
    the mask ``pool_mask`` and resolution ``pool_voxels`` that chose the training rays.
    """

    config: DvgoModelConfig
    field: DirectVoxGO

    def populate_modules(self) -> None:
        """An empty field in the scene's box, until the first step replaces it."""
        super().populate_modules()
        self.field = self.empty_field(*self.scene_box.aabb.float())
        # The network outlives the stages: the coarse field has none, but its parameters are in an optimiser from the
        # start.
        self.rgbnet = self.field.rgbnet
        for name, value in {
            "num_voxels": torch.tensor(self.field.num_voxels),
            "depth_range": torch.zeros(2),
            "background": torch.ones(3),
            "pool_mask": torch.zeros(0).bool(),
            "pool_voxels": torch.tensor(0),
        }.items():
            self.register_buffer(name, value)

    def empty_field(self, low: Tensor, high: Tensor) -> DirectVoxGO:
        """A tiny field with the colour network that all stages share, in the scene's box from ``low`` to ``high`` (3,).

        Raises:
            SceneError: the box cannot be filled with as many voxels as the stages ask for.
        """
        for stage, settings in (("coarse", self.config.coarse), ("fine", self.config.fine)):
            try:
                grid_resolution(low, high, settings.num_voxels)
            except ValueError as error:
                raise SceneError(f"--pipeline.model.{stage}.num-voxels: {error}") from None
        return make_fine(low, high, self.config.fine, align_corners=self.config.align_corners, num_voxels=64)

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Density, features and colour network; the groups are the same in all stages."""
        return {
            "density": [self.field.density.grid],
            "k0": [self.field.k0.grid],
            "rgbnet": list(self.rgbnet.parameters()),
        }

    def put_field(self, field: DirectVoxGO) -> None:
        """Replace the field; optimisers hold the old one's parameters until they are restarted."""
        self.field = field.to(self.device)
        self.num_voxels.fill_(field.num_voxels)

    def background_colour(self) -> Tensor:
        """White or black, as the scene was read."""
        return self.background

    @property
    def near(self) -> float:
        """Smallest depth of the scene."""
        return float(self.depth_range[0])

    # Rendering

    def render(self, ray_bundle: RayBundle) -> DvgoRendering:
        """Render rays (N). Rays that say where they begin and end (those of a crop, or of a mesh's texture) show what
        lies between, others what lies beyond ``near``."""
        rays_o, rays_d, viewdirs = unnormalised(ray_bundle)
        return self.field(
            rays_o,
            rays_d,
            viewdirs,
            **ray_range(ray_bundle, self.near),
            bg=self.shown_background(),
            stepsize=self.config.stepsize,
        )

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Any]:
        """``rgb`` (N, 3) of rays, and what :meth:`shape_of` makes of them; in training the typed rendering as well."""
        rendering = self.render(ray_bundle)
        outputs = {"rgb": rendering.rgb_marched, **self.shape_of(rendering, ray_bundle)}
        return {**outputs, RENDERING: rendering} if self.training else outputs

    def shape_of(self, rendering: DvgoRendering, ray_bundle: RayBundle) -> dict[str, Tensor]:
        """``accumulation`` (N, 1) of rendered rays, and ``depth`` (N, 1) in scene units along them: that of the scene's
        far end where no more than half of a ray is stopped."""
        opacity = 1 - rendering.alphainv_last.detach()
        # What carves a mesh out of depths needs to know where rays pass by.
        beyond = self.depth_range[1] * unnormalised(ray_bundle)[1].norm(dim=-1)
        depth = torch.where(opacity > OPAQUE, rendering.distance / opacity.clamp(min=1e-6), beyond)
        return {"accumulation": opacity[:, None], "depth": depth[:, None]}

    # Geometry

    def density_space(self) -> DensitySpace:
        """The scene's box, in the world."""
        return DensitySpace(self.scene_box.aabb.float())

    @torch.no_grad()
    def density_at(self, points: Tensor) -> Tensor:
        """Density (N,) at points (N, 3), in 1 / world unit; 0 where rendering skips a sample: outside of the grids, in
        cells that are known to be free, and where a step would not be opaque enough."""
        field = self.field
        inside = ((points >= field.xyz_min) & (points <= field.xyz_max)).all(-1)
        where = (inside & field.mask_cache(points)).nonzero()[:, 0]
        raw = field.density(points[where])
        seen = field.activate(raw, interval=self.config.stepsize * float(field.voxel_size_ratio))
        # 1 - (1 + e^x) ** -n is the opacity of n base voxels of density log(1 + e^x).
        per_base_voxel = torch.nn.functional.softplus(raw + field.act_shift)
        sigma = per_base_voxel * float(field.voxel_size_ratio) / float(field.voxel_size)
        return points.new_zeros(len(points)).index_put((where,), sigma * (seen > field.fast_color_thres))

    def get_loss_dict(self, outputs: dict, batch: dict, metrics_dict: dict | None = None) -> dict[str, Tensor]:
        """The losses of the present stage."""
        rendering, target = outputs.get(RENDERING), self.target(batch)
        if rendering is None:  # evaluation of a batch: the colours are all there is
            return {"rgb_loss": torch.nn.functional.mse_loss(outputs["rgb"], target)}
        return self.losses(rendering, target)

    def losses(self, rendering: DvgoRendering, target: Tensor) -> dict[str, Tensor]:
        """DirectVoxGO's losses for colours (N, 3), with the weights of the coarse stage or of the fine one."""
        first = self.stages.present is None or self.stages.present.name == "coarse"
        settings = self.config.coarse if first else self.config.fine
        return dvgo_losses(
            rendering,
            target,
            weight_entropy_last=settings.weight_entropy_last,
            weight_rgbper=settings.weight_rgbper,
        )
