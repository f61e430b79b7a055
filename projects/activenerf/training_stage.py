"""The stage of training: steps on the views that there are, and acquisitions between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from perception.geometry.rays import NDC
from perception.radiance.metrics import psnr
from perception.studio.errors import SceneError
from perception.studio.samplers import PoolSamplerConfig, generator
from perception.studio.stages import Stage
from perception.studio.training_run import Iteration, TrainingRun
from projects.activenerf.acquisition import best_views, farthest_views, random_views
from projects.activenerf.pools import STREAM, PoolDataManager, open_pools, write_active_views
from projects.activenerf.scoring import score_views
from projects.activenerf.settings import TrainingSettings

if TYPE_CHECKING:
    from projects.activenerf.model import ActiveNerfModel

NOISE = 1 << 23  # where the numbers of samples' and densities' noise begin, beyond those of epochs
LLFF = "llff"  # what the metadata of such a scene have
LLFF_NEAR = 0.9  # of the smallest bound, where such a scene is not seen in normalised device coordinates
RECORD = "active_views.json"
"""The file in a run's folder that says which views it has acquired."""


class ActiveStage(Stage["ActiveNerfModel", TrainingSettings]):
    """Draws each ray of the views that there are once per epoch; an acquisition begins a new epoch, with the same
    optimiser state."""

    def start(self, run: TrainingRun[ActiveNerfModel]) -> None:
        model, manager = run.model, _manager(run)
        names, initial = manager.view_names, manager.initial()
        model.put_pools(open_pools(names, initial))
        _check_candidates(model, len(model.pools.candidates))
        self._see_scene(run)
        model.start_from_file()
        CONSOLE.log(f"{len(initial)} views to begin with, {len(names) - len(initial)} candidates")
        self._write(run)
        self._draw(run)

    def take_up(self, run: TrainingRun[ActiveNerfModel]) -> None:
        model, manager = run.model, _manager(run)
        before = len(model.pools.keys)
        pools = model.pools.of_views(manager.view_names, run.step)
        model.put_pools(pools)
        if added := len(pools.keys) - before:
            CONSOLE.log(f"{added} views have come since the checkpoint, and are trained on")
        self._write(run)
        self._draw(run)

    def before_step(self, run: TrainingRun[ActiveNerfModel], local: int) -> None:
        if run.step in run.model.config.active_iters:
            self._acquire(run)
        elif run.step == self.settings.precrop_iters:
            self._draw(run)

    def train_iteration(self, run: TrainingRun[ActiveNerfModel]) -> Iteration:
        model = run.model
        rays, batch = run.manager.next_train(run.step)
        target = model.target(batch)
        pair = model.render(rays, generator(run.manager.seed, NOISE + run.step))
        losses = model.losses(pair, target)
        loss = torch.stack([*losses.values()]).sum()
        if not bool(loss.isfinite()):
            raise SceneError(_not_finite(losses, run.step))
        run.zero_grad()
        run.backward(loss)
        run.optimizer_step()
        empty = (pair.fine.uncert.detach() <= 0).float()
        fell_back = {"batch": empty.amax(), "ray": empty.mean(), "none": empty.new_zeros(())}
        share = fell_back[model.config.uncert_fallback]
        model.fallbacks += share.double()
        metrics = {"psnr": psnr(pair.fine.rgb.detach(), target), "fallback": share}
        return run.end_iteration(loss, losses, metrics)

    def finish(self, run: TrainingRun[ActiveNerfModel]) -> None:
        model = run.model
        what = {"batch": "batches", "ray": "rays", "none": "rays"}[model.config.uncert_fallback]
        share = float(model.fallbacks) / self.settings.iters
        CONSOLE.log(
            f"{len(model.pools.active)} views in the end ({RECORD}); {share:.1%} of the {what} fell back to the "
            "squared error (--pipeline.model.uncert-fallback)"
        )

    # Scene

    def _see_scene(self, run: TrainingRun[ActiveNerfModel]) -> None:
        model, manager = run.model, _manager(run)
        model.background.copy_(manager.background)
        near, far = manager.depth_range[:2]
        if LLFF in manager.train_dataparser_outputs.metadata and model.config.near is None:
            near *= LLFF_NEAR
        model.depth_range.copy_(torch.tensor([near, far]))
        if model.config.use_ndc:
            first = manager.train_dataset.cameras[0]
            focal, size = float(first.fx), (int(first.width), int(first.height))
            coordinates = NDC.of_camera(focal, focal, *size)
            model.ndc.copy_(torch.tensor([coordinates.x_scale, coordinates.y_scale]))

    def _draw(self, run: TrainingRun[ActiveNerfModel]) -> None:
        """Put the views that there are to use, from the step at which that last changed."""
        manager, crop = run.manager, self.settings.precrop_iters
        manager.pixels.show(run.model.pools.active)
        start, pixels = run.model.pools.changed, None
        if run.step < crop:
            pixels = _central(manager.pixels.positions(manager.pixels.usable), manager, self.settings.precrop_frac)
        elif crop <= run.step:
            start = max(start, crop)
        manager.use(PoolSamplerConfig(), start=start, pixels=pixels)

    # Acquisition

    def _acquire(self, run: TrainingRun[ActiveNerfModel]) -> None:
        model, manager, config = run.model, _manager(run), run.model.config
        candidates = model.pools.candidates
        _check_candidates(model, len(candidates), rounds=1)
        places = manager.train_dataset.cameras.camera_to_worlds[:, :3, 3]
        scores = [float("nan")] * len(candidates)
        if config.acquisition == "uncertainty":
            found = score_views(model, manager.train_dataset.cameras[torch.tensor(candidates)], config.ds_rate)
            scores = [score.total for score in found]
            chosen = best_views([score.mean for score in found], config.choose_k)
        elif config.acquisition == "random":
            chosen = random_views(len(candidates), config.choose_k, generator(manager.seed, STREAM + run.step))
        else:
            chosen = farthest_views(places[model.pools.active], places[candidates], config.choose_k)
        views = [candidates[place] for place in chosen]
        model.pools.acquire(views, run.step, [scores[place] for place in chosen])
        names = manager.view_names
        CONSOLE.log(f"Step {run.step}: acquired {_shown([names[view] for view in views], [scores[p] for p in chosen])}")
        self._write(run)
        self._draw(run)

    def _write(self, run: TrainingRun[ActiveNerfModel]) -> None:
        config = run.model.config
        write_active_views(
            run.trainer.base_dir / RECORD,
            run.model.pools,
            _manager(run).view_names,
            acquisition=config.acquisition,
            active_iters=list(config.active_iters),
            choose_k=config.choose_k,
            ds_rate=config.ds_rate,
        )


def _manager(run: TrainingRun[ActiveNerfModel]) -> PoolDataManager:
    manager = run.manager
    assert isinstance(manager, PoolDataManager)  # the model has seen to that
    return manager


def _check_candidates(model: ActiveNerfModel, there: int, rounds: int | None = None) -> None:
    config = model.config
    rounds = len(config.active_iters) if rounds is None else rounds
    if rounds * config.choose_k > there:
        raise SceneError(
            f"{rounds} x {config.choose_k} views are to be acquired (--pipeline.model.active-iters, "
            f"--pipeline.model.choose-k), but there are {there} candidates: start with fewer views "
            "(--pipeline.datamanager.initial-views), name candidates in transforms_holdout.json (Blender layout), or "
            "give --pipeline.model.active-iters no steps to acquire none"
        )


def _central(positions: Tensor, manager: PoolDataManager, share: float) -> Tensor:
    """Indices of those usable pixels, whose positions (P, 3) are given, that lie in the middle of their images."""
    sizes = torch.tensor(manager.pixels.sizes)[positions[:, 0]]  # (P, 2) height, width
    off = ((positions[:, 1:] + 0.5) / sizes - 0.5).abs() <= share / 2
    return manager.pixels.usable[off.all(-1)]


def _not_finite(losses: Mapping[str, Tensor], step: int) -> str:
    terms = ", ".join(f"{name} {float(value):.4g}" for name, value in losses.items())
    return (
        f"the loss of step {step} is not finite ({terms}): lower the learning rate (--optimizers.fields.optimizer.lr), "
        "and continue from the last checkpoint with --load-dir"
    )


def _shown(names: Sequence[str], scores: Sequence[float]) -> str:
    return ", ".join(name if score != score else f"{name} ({score:.4g})" for name, score in zip(names, scores))
