"""DirectVoxGO's coarse and fine stage in a nerfstudio run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.dvgo_settings import CoarseSettings, FineSettings
from perception.radiance.dvgo_stages import (
    fills_its_box,
    fine_resolutions,
    grow,
    make_coarse,
    make_fine,
    put_around_parameters,
    rays_that_hit,
    start_coarse,
    start_fine,
    voxel_learning_rates,
)
from perception.studio.progress import progress_bar, tracked
from perception.studio.samplers import PoolSamplerConfig, RandomSamplerConfig, SamplerConfig
from perception.studio.stages import Stage
from perception.studio.training_run import TrainingRun

if TYPE_CHECKING:
    from perception.studio.dvgo_model import DvgoModel

MASK_EVERY = 1000  # steps between two looks for free space, the first one in the middle


class CoarseStage(Stage["DvgoModel", CoarseSettings]):
    """Finds out where something is: a field around all viewing frusta, trained on any pixels."""

    def start(self, run: TrainingRun[DvgoModel]) -> None:
        model, manager, config = run.model, run.manager, run.model.config
        model.depth_range.copy_(torch.tensor(manager.depth_range[:2]))
        model.background.copy_(manager.background)
        near, far = model.depth_range.tolist()
        centres = manager.train_dataset.cameras.camera_to_worlds[:, :3, 3]
        views = manager.training_views()
        coarse = start_coarse(views, centres, near, far, self.settings, align_corners=config.align_corners)
        model.put_field(coarse)
        restart_all(run, skip_zero_grad=False)
        if self.settings.per_voxel_lr:
            views = manager.training_views(stride=self.settings.view_count_stride)
            with progress_bar("Counting the views that see each voxel", views.num_rays) as advance:
                counted = tracked(views, advance)
                count = voxel_learning_rates(coarse, counted, near=near, stepsize=config.stepsize)
            grid = model.field.density.grid
            run.optimizers.optimizers["density"].set_pervoxel_lr(grid, count[None, None])
        self.take_up(run)

    def take_up(self, run: TrainingRun[DvgoModel]) -> None:
        run.manager.use(RandomSamplerConfig())

    def before_step(self, run: TrainingRun[DvgoModel], local: int) -> None:
        update_mask(run.model, local)

    def rebuild(self, model: DvgoModel, state_dict: Mapping[str, Tensor]) -> None:
        low, high = state_dict["field.xyz_min"], state_dict["field.xyz_max"]
        take_shape(model, make_coarse(low, high, self.settings, align_corners=model.config.align_corners), state_dict)


class FineStage(Stage["DvgoModel", FineSettings]):
    """The field itself: in the box that the coarse one found, growing, trained on the rays that meet something."""

    def start(self, run: TrainingRun[DvgoModel]) -> None:
        model = run.model
        if fills_its_box(model.field, self.settings.bbox_thres):
            CONSOLE.log(
                "[yellow]The coarse field is not empty at any side of its box: the scene looks unbounded, or its "
                "images show a background. Mask the images, or expect a poor fine field."
            )
        fine = start_fine(model.field, self.settings)
        fine.rgbnet = model.rgbnet
        model.put_field(fine)
        restart_all(run, skip_zero_grad=True)
        remember_pool(model)
        self.take_up(run)

    def take_up(self, run: TrainingRun[DvgoModel]) -> None:
        use_pool(run, self.span.start)

    def before_step(self, run: TrainingRun[DvgoModel], local: int) -> None:
        update_mask(run.model, local)
        if local in self.settings.pg_scale:
            number = self.settings.pg_scale.index(local)
            grow(run.model.field, fine_resolutions(self.settings)[number + 1], self.settings)
            run.model.num_voxels.fill_(run.model.field.num_voxels)
            restart_all(run, skip_zero_grad=True)

    def rebuild(self, model: DvgoModel, state_dict: Mapping[str, Tensor]) -> None:
        rebuild_fine(model, state_dict)


# Parts, for stages that follow


def restart_all(run: TrainingRun[DvgoModel], *, skip_zero_grad: bool) -> None:
    """Train the present field's grids and network afresh; grids as the stage has it, see
    :class:`~perception.radiance.optim.MaskedAdam`."""
    run.restart("density", "k0", skip_zero_grad=skip_zero_grad)
    run.restart("rgbnet")


def update_mask(model: DvgoModel, local: int) -> None:
    """Mark free space where a step, counted from 1, is due to."""
    if (local + MASK_EVERY // 2) % MASK_EVERY == 0:
        model.field.update_occupancy_cache()


def remember_pool(model: DvgoModel) -> None:
    """Keep what chooses the rays of a stage that begins: a resumed run will choose the same."""
    model.pool_mask = model.field.mask_cache.mask.clone()
    model.pool_voxels.fill_(model.field.num_voxels)


def use_pool(run: TrainingRun[DvgoModel], start: int, sampler: SamplerConfig | None = None) -> None:
    """Train on the rays that meet the mask as it was when the stage began, at step ``start``: each once per epoch, or
    as another sampler has it."""
    model, manager = run.model, run.manager
    probe = _fine_like(model, model.field.xyz_min, model.field.xyz_max, int(model.pool_voxels)).to(model.device)
    probe.set_mask(model.pool_mask)
    views = manager.training_views()
    with progress_bar("Rays that meet the scene", views.num_rays) as advance:
        hits = rays_that_hit(probe, tracked(views, advance), near=model.near, stepsize=model.config.stepsize)
    manager.use(sampler or PoolSamplerConfig(), start=start, pixels=manager.pixels.shown(hits))


def rebuild_fine(model: DvgoModel, state_dict: Mapping[str, Tensor]) -> None:
    """Give a model the fine field's shape in a checkpoint."""
    low, high = state_dict["field.xyz_min"], state_dict["field.xyz_max"]
    fine = _fine_like(model, low, high, int(state_dict["num_voxels"]))
    fine.rgbnet = model.rgbnet
    take_shape(model, fine, state_dict)


def take_shape(model: DvgoModel, new: DirectVoxGO, state_dict: Mapping[str, Tensor]) -> None:
    """Put an empty field around the parameter objects that optimisers hold, with a mask of the checkpoint's size."""
    new.set_mask(torch.zeros_like(state_dict["field.mask_cache.mask"]))
    put_around_parameters(new, model.field)
    model.field = new.to(model.device)


def _fine_like(model: DvgoModel, low: Tensor, high: Tensor, num_voxels: int) -> DirectVoxGO:
    config = model.config
    return make_fine(low, high, config.fine, align_corners=config.align_corners, num_voxels=num_voxels)
