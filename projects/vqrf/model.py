"""VQRF as a nerfstudio model: coarse field, fine field and compression as stages of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn import Parameter

from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.losses import dvgo_losses
from perception.studio.datamanager import RayDataManager, ray_range, unnormalised
from perception.studio.errors import SceneError
from perception.studio.model import OPAQUE, RadianceModel, RadianceModelConfig
from perception.studio.scene import describe_parser
from perception.studio.scene_checks import SceneUse
from perception.studio.stages import (
    Stage,
    StageSchedule,
    progress_bar,
    replace_parameters,
    scale_learning_rate,
)
from projects.vqrf.classes import VoxelClasses, split_voxels
from projects.vqrf.codebook import VectorQuantizer
from projects.vqrf.compressed import CompressedGrids, group_indices, synchronise_groups
from projects.vqrf.decode import Scales, compress_field, load_into
from projects.vqrf.importance import importance_scores
from projects.vqrf.settings import CoarseSettings, CompressionSettings, FineSettings, check_compression, check_grids
from projects.vqrf.stages import (
    fills_its_box,
    fine_resolutions,
    grow,
    make_coarse,
    make_fine,
    start_coarse,
    start_fine,
    voxel_learning_rates,
)

UNTRAINED, COARSE, FINE, COMPRESSION = -1, 0, 1, 2
GROUPS = ("density", "k0", "rgbnet")


@dataclass
class VqrfModelConfig(RadianceModelConfig):
    """DirectVoxGO, then pruning, vector quantisation and joint fine-tuning."""

    _target: type = field(default_factory=lambda: VqrfModel)
    near: float | None = None
    """Smallest depth of the scene; by default what the scene says or its cameras suggest (2 for synthetic NeRF)."""
    far: float | None = None
    """Largest depth; by default what the scene says or its cameras suggest (6 for synthetic NeRF)."""
    stepsize: float = 0.5
    """Distance between samples in voxels."""
    align_corners: bool = False
    """Voxel centres on the faces of the box, as in DirectVoxGO; the published VQRF checkpoints were trained without."""
    coarse: CoarseSettings = field(default_factory=CoarseSettings)
    """First stage."""
    fine: FineSettings = field(default_factory=FineSettings)
    """Second stage."""
    compression: CompressionSettings = field(default_factory=CompressionSettings)
    """Third stage."""
    report_split: Literal["test", "val", "none"] = "test"
    """Views on which the field is measured before and after compression."""

    free_on_resume: ClassVar[frozenset[str]] = RadianceModelConfig.free_on_resume | {"report_split"}
    sizes: ClassVar[frozenset[str]] = frozenset(
        {
            "coarse.num_voxels",
            "fine.num_voxels",
            "fine.pg_scale",
            "fine.rgbnet_dim",
            "fine.rgbnet_depth",
            "fine.rgbnet_width",
            "fine.viewbase_pe",
            "compression.codebook_size",
        }
    )

    def scene_use(self) -> SceneUse:
        """A bounded scene that the cameras surround, and the views of the report."""
        splits = () if self.report_split == "none" else (self.report_split,)
        return SceneUse(splits, self.near, self.far, surrounded=True, bounds_rays=True)

    def schedule(self) -> StageSchedule:
        """The stages and their steps."""
        return StageSchedule(
            [
                ("coarse", self.coarse.iters),
                ("fine", self.fine.iters),
                ("compression", self.compression.iters),
            ]
        )


class VqrfModel(RadianceModel):
    """A DirectVoxGO field that changes shape from stage to stage.

    What a checkpoint needs to rebuild it are buffers: ``stage``, ``num_voxels``, the mask ``pool_mask`` and resolution
    ``pool_voxels`` that chose the training rays, and in the last stage ``importance``, ``non_prune``, ``keep``,
    ``groups`` and the codebook ``vq``.
    """

    config: VqrfModelConfig
    field: DirectVoxGO

    def populate_modules(self) -> None:
        """An empty field in the scene's box, until the first step replaces it."""
        super().populate_modules()
        low, high = self.scene_box.aabb.float()
        check_compression(self.config.compression)
        check_grids(self.config.coarse, self.config.fine, low, high)
        self.schedule = self.config.schedule()
        placeholder = make_fine(low, high, self.config.fine, align_corners=self.config.align_corners, num_voxels=64)
        self.field = placeholder
        # The network outlives the stages: the coarse field has none, but its parameters are in an optimiser from the
        # start.
        self.rgbnet = placeholder.rgbnet
        compression = self.config.compression
        self.vq = VectorQuantizer(self.config.fine.rgbnet_dim, compression.codebook_size, k_expire=compression.k_expire)
        none = torch.zeros(0)
        for name, value in {
            "stage": torch.tensor(UNTRAINED),
            "num_voxels": torch.tensor(self.field.num_voxels),
            "depth_range": torch.zeros(2),
            "background": torch.ones(3),
            "pool_mask": none.bool(),
            "pool_voxels": torch.tensor(0),
            "importance": none,
            "non_prune": none.bool(),
            "keep": none.bool(),
            "groups": none.long(),
            "quantization": torch.zeros(0, dtype=torch.float64),
        }.items():
            self.register_buffer(name, value)
        self._before: dict[str, float] = {}
        self.dataparser: dict | None = None

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Density, features and colour network; the groups are the same in all stages."""
        return {
            "density": [self.field.density.grid],
            "k0": [self.field.k0.grid],
            "rgbnet": list(self.rgbnet.parameters()),
        }

    def background_colour(self) -> Tensor:
        """White or black, as the scene was read."""
        return self.background

    @property
    def near(self) -> float:
        """Smallest depth of the scene."""
        return float(self.depth_range[0])

    # Rendering

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:
        """Render rays (N): ``rgb`` (N, 3), ``accumulation`` (N, 1), ``depth`` (N, 1) in scene units along the ray, and
        that of the scene's far end where no more than half of a ray is stopped.

        Rays that say where they begin and end (those of a crop, or of a mesh's texture) show what lies between, others
        what lies beyond ``near``. In training also everything that the losses need.
        """
        rays_o, rays_d, viewdirs = unnormalised(ray_bundle)
        rendered = self.field(
            rays_o,
            rays_d,
            viewdirs,
            **ray_range(ray_bundle, self.near),
            bg=self.shown_background(),
            stepsize=self.config.stepsize,
        )
        opacity = 1 - rendered["alphainv_last"].detach()
        # What carves a mesh out of depths needs to know where rays pass by.
        beyond = self.depth_range[1] * rays_d.norm(dim=-1)
        depth = torch.where(opacity > OPAQUE, rendered["distance"] / opacity.clamp(min=1e-6), beyond)
        outputs = {"rgb": rendered["rgb_marched"], "accumulation": opacity[:, None], "depth": depth[:, None]}
        return {**rendered, **outputs} if self.training else outputs

    def get_loss_dict(self, outputs: dict, batch: dict, metrics_dict: dict | None = None) -> dict[str, Tensor]:
        """The losses of the present stage."""
        target = self.target(batch)
        if "raw_rgb" not in outputs:  # evaluation of a batch: the colours are all there is
            return {"rgb_loss": torch.nn.functional.mse_loss(outputs["rgb"], target)}
        settings = self.config.coarse if int(self.stage) <= COARSE else self.config.fine
        return dvgo_losses(
            outputs,
            target,
            weight_entropy_last=settings.weight_entropy_last,
            weight_rgbper=settings.weight_rgbper,
        )

    # Stages

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        """Changes of stage before a step, synchronisation of codewords after it, the file at the end."""
        manager = attributes.pipeline.datamanager
        if not isinstance(manager, RayDataManager):
            raise SceneError(f"vqrf needs a RayDataManager, not {type(manager).__name__}")
        if int(self.stage) == UNTRAINED:
            CONSOLE.log(f"Stages: {self.schedule} steps")
        self._run = attributes
        self.dataparser = describe_parser(manager.config.dataparser, manager.config.data)
        return [
            TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self._before_step),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self._after_step),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], self._finish),
        ]

    # Not a property: the viewer reads all properties of a model, also of one that is not being trained.
    def _manager(self) -> RayDataManager:
        return self._run.pipeline.datamanager

    def _before_step(self, step: int) -> None:
        stage = self.schedule.at(step)
        if stage.index > int(self.stage):
            (self._start_coarse, self._start_fine, self._start_compression)[stage.index](stage)
            self.stage.fill_(stage.index)
        elif stage.index >= FINE and self._manager().pool_start != stage.start:
            self._use_pool(stage)  # resumed in the middle of a stage
        local = stage.local(step)
        if stage.index <= FINE and (local + 500) % 1000 == 0:
            self.field.update_occupancy_cache()
        if stage.index == FINE and local in self.config.fine.pg_scale:
            number = self.config.fine.pg_scale.index(local)
            grow(self.field, fine_resolutions(self.config.fine)[number + 1], self.config.fine)
            self.num_voxels.fill_(self.field.num_voxels)
            self._new_optimisers(skip_zero_grad=True)

    def _after_step(self, step: int) -> None:
        stage = self.schedule.at(step)
        if stage.index == COMPRESSION and stage.local(step) % self.config.compression.sync_every == 0:
            self._synchronise()

    def _start_coarse(self, stage: Stage) -> None:
        manager, config = self._manager(), self.config
        cameras = manager.train_dataset.cameras
        self.depth_range.copy_(torch.tensor(manager.depth_range[:2]))
        self.background.copy_(manager.background)
        near, far = self.depth_range.tolist()
        views, centres = manager.training_views(), cameras.camera_to_worlds[:, :3, 3]
        coarse = start_coarse(views, centres, near, far, config.coarse, align_corners=config.align_corners)
        self._install(coarse, skip_zero_grad=False)
        if config.coarse.per_voxel_lr:
            views = manager.training_views(stride=config.coarse.view_count_stride)
            with progress_bar("Counting the views that see each voxel", views.num_rays) as advance:
                counted = _tracked(views, advance)
                count = voxel_learning_rates(coarse, counted, near=near, stepsize=config.stepsize)
            grid = self.field.density.grid
            self._run.optimizers.optimizers["density"].set_pervoxel_lr(grid, count[None, None])
        manager.use_random()

    def _start_fine(self, stage: Stage) -> None:
        coarse, config = self.field, self.config
        if fills_its_box(coarse, config.fine.bbox_thres):
            CONSOLE.log(
                "[yellow]The coarse field is not empty at any side of its box: the scene looks unbounded, or its "
                "images show a background. Mask the images, or expect a poor fine field."
            )
        fine = start_fine(coarse, config.fine)
        fine.rgbnet = self.rgbnet
        self._install(fine, skip_zero_grad=True)
        self._remember_pool()
        self._use_pool(stage)

    def _start_compression(self, stage: Stage) -> None:
        manager, settings = self._manager(), self.config.compression
        self._before = self._measure("before compression")
        views = manager.training_views()
        with progress_bar("Importance of voxels", views.num_rays) as advance:
            scores = importance_scores(
                self.field, views, near=self.near, stepsize=self.config.stepsize, on_rays=advance
            )
        try:
            classes = split_voxels(scores, settings.importance_prune, settings.importance_keep)
        except ValueError as error:
            raise SceneError(f"{error}: check the poses and near/far, or train the fine stage for longer") from None
        self.importance, self.non_prune, self.keep = scores, classes.non_prune, classes.keep
        CONSOLE.log(
            f"Of {len(scores)} voxels {int(classes.non_prune.sum())} remain, "
            f"{int(classes.keep.sum())} of them without a codebook"
        )
        features = self.field.k0.table()[classes.vq]
        with progress_bar("Codebook", settings.codebook_iters) as advance:
            self.vq.initialise(
                features,
                scores[classes.vq],
                steps=settings.codebook_iters,
                batch=settings.codebook_batch,
                generator=torch.Generator(features.device).manual_seed(manager.seed),
                on_progress=advance,
            )
        self._remember_pool()  # of the fine field, whose free space has not been cut to the remaining voxels yet
        self._use_pool(stage)
        network = {name: value.clone() for name, value in self.rgbnet.state_dict().items()}
        self._reformat()
        self.rgbnet.load_state_dict(network)  # it is rounded to half precision only at the end
        for group in GROUPS:
            scale_learning_rate(self._run.optimizers, group, settings.lr_factor)

    @property
    def classes(self) -> VoxelClasses:
        """Which voxels remain, and which of them keep their own features."""
        return VoxelClasses(self.non_prune, self.keep)

    def _reformat(self) -> CompressedGrids:
        """Replace the field by what a file of it would decode to."""
        codes = self._nearest_codes()
        self.groups = group_indices(self.classes, codes, len(self.vq.embed))
        compressed = self._compressed(codes[self.classes.vq])
        load_into(self.field, compressed)
        return compressed

    def _nearest_codes(self) -> Tensor:
        """The codeword nearest to each voxel (V,); 0 for dropped voxels, unless they count in the codewords' means."""
        features = self.field.k0.table()
        if self.config.compression.sync_include_pruned:
            return self.vq.assign(features)
        codes = torch.zeros(len(features), dtype=torch.long, device=features.device)
        codes[self.non_prune] = self.vq.assign(features[self.non_prune])
        return codes

    def _compressed(self, codes: Tensor, scales: Scales | None = None) -> CompressedGrids:
        return compress_field(self.field, self.classes, self.vq.embed, codes, self.render_settings(), scales)

    def packed(self) -> CompressedGrids:
        """The field in its compressed form; of a finished run the one that its file holds."""
        if not len(self.quantization):
            return self._compressed(self._nearest_codes()[self.classes.vq])
        density_scale, density_zero, kept_scale, kept_zero = self.quantization.tolist()
        scales = Scales((density_scale, int(density_zero)), (kept_scale, int(kept_zero)))
        return self._compressed(self.groups[self.classes.vq], scales)

    def render_settings(self) -> dict:
        """What rendering needs to know besides the field."""
        return {
            "near": self.near,
            "far": float(self.depth_range[1]),
            "stepsize": self.config.stepsize,
            "background": self.background.tolist(),
            "dataparser": self.dataparser,
        }

    @torch.no_grad()
    def _synchronise(self) -> None:
        synchronise_groups(
            self.field.k0.table(),
            self.groups,
            self.vq.embed,
            non_prune=None if self.config.compression.sync_include_pruned else self.non_prune,
        )

    # Fields and optimisers

    def _install(self, new: DirectVoxGO, *, skip_zero_grad: bool) -> None:
        self.field = new.to(self.device)
        self.num_voxels.fill_(new.num_voxels)
        self._new_optimisers(skip_zero_grad=skip_zero_grad)

    def _new_optimisers(self, *, skip_zero_grad: bool) -> None:
        optimizers = self._run.optimizers
        for group, parameters in self.get_param_groups().items():
            replace_parameters(optimizers, group, parameters)
            if group != "rgbnet":
                optimizers.optimizers[group].param_groups[0]["skip_zero_grad"] = skip_zero_grad

    def _remember_pool(self) -> None:
        self.pool_mask = self.field.mask_cache.mask.clone()
        self.pool_voxels.fill_(self.field.num_voxels)

    def _use_pool(self, stage: Stage) -> None:
        """Train on the rays that meet the mask as it was when the stage began."""
        box = (self.field.xyz_min, self.field.xyz_max)
        probe = make_fine(
            *box, self.config.fine, align_corners=self.config.align_corners, num_voxels=int(self.pool_voxels)
        ).to(self.device)
        probe.set_mask(self.pool_mask)
        views = self._manager().training_views()
        with progress_bar("Rays that meet the scene", views.num_rays) as advance:
            hits = [
                probe.hit_mask(rays_o, rays_d, near=self.near, stepsize=self.config.stepsize).cpu()
                for _, rays_o, rays_d, _ in _tracked(views, advance)
            ]
        usable = self._manager().pixels.usable
        self._manager().use_pool(usable[torch.cat(hits)[usable]], stage.start)

    # End of the run

    def _measure(self, when: str) -> dict[str, float]:
        from perception.studio.evaluation import measure_split

        if self.config.report_split == "none":
            return {}
        metrics = measure_split(self._run.pipeline, self.config.report_split)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        CONSOLE.log(f"{self.config.report_split} views {when}: {shown}")
        return metrics

    def _finish(self, step: int) -> None:
        from projects.vqrf.report import write_report

        if step < self.schedule.total_steps - 1:
            CONSOLE.log(
                f"Stopped in stage {self.schedule.at(step).name} at step {step} of {self.schedule.total_steps}: "
                "no file is written yet. Continue with --load-dir and the run's nerfstudio_models folder."
            )
            return
        compressed = self._reformat()
        numbers = [number for part in (compressed.density, compressed.kept) for number in part[1:]]  # scale, zero point
        self.quantization = torch.tensor(numbers, dtype=torch.float64)
        trainer = self._run.trainer
        after = self._measure("after compression")
        write_report(trainer.base_dir, compressed, before=self._before, after=after)
        trainer.save_checkpoint(step)

    # Checkpoints

    def resize_to(self, state_dict: Mapping[str, Tensor]) -> None:
        """Rebuild the field of the stage in which a checkpoint was written, around the present parameter objects."""
        if "stage" in state_dict and int(state_dict["stage"]) > UNTRAINED:
            low, high = state_dict["field.xyz_min"], state_dict["field.xyz_max"]
            voxels, align_corners = int(state_dict["num_voxels"]), self.config.align_corners
            if int(state_dict["stage"]) == COARSE:
                new = make_coarse(low, high, self.config.coarse, align_corners=align_corners)
            else:
                new = make_fine(low, high, self.config.fine, align_corners=align_corners, num_voxels=voxels)
                new.rgbnet = self.rgbnet
            new.set_mask(torch.zeros_like(state_dict["field.mask_cache.mask"]))
            for grid, old in ((new.density, self.field.density.grid), (new.k0, self.field.k0.grid)):
                old.data = grid.grid.data.to(self.device)
                grid.grid = old
            self.field = new.to(self.device)
        super().resize_to(state_dict)


def _tracked(views, advance):
    for chunk in views:
        yield chunk
        advance(len(chunk[1]))
