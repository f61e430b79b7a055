"""Validation and test loops that encode a gallery, and the hook that mines hard negatives."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, LOOPS
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from torch.utils.data import DataLoader

from perception.engine.epochs import ExactEpochResumeHook

from .evaluation import describe_tiles, evaluate, examine_pairs, similar_tiles


class _GeoLoop(BaseLoop):
    """Evaluates over a gallery.

    Args:
        runner: MMEngine's runner.
        dataloader: of :class:`~perception.datasets.geolocalization.VigorPairs`.
        gallery: config of a data loader of :class:`~perception.datasets.geolocalization.VigorTiles`.
        evaluator: MMEngine insists on one; what this loop measures needs none.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, gallery: dict, evaluator: Any = None):
        super().__init__(runner, dataloader)
        self.gallery = runner.build_dataloader(gallery, seed=runner.seed)

    def _measure(self) -> dict[str, float]:
        model = self.runner.model
        model.eval()
        core = getattr(model, "module", model)
        return evaluate(model, self.gallery, self.dataloader, core.rerank_topk)


@LOOPS.register_module()
class GeoValLoop(_GeoLoop):
    """See :class:`_GeoLoop`."""

    def run(self) -> dict[str, float]:
        """Measures, and hands the numbers to the hooks."""
        self.runner.call_hook("before_val")
        self.runner.call_hook("before_val_epoch")
        metrics = self._measure()
        self.runner.call_hook("after_val_epoch", metrics=metrics)
        self.runner.call_hook("after_val")
        return metrics


@LOOPS.register_module()
class GeoTestLoop(_GeoLoop):
    """See :class:`_GeoLoop`."""

    def run(self) -> dict[str, float]:
        """Measures, and hands the numbers to the hooks."""
        self.runner.call_hook("before_test")
        self.runner.call_hook("before_test_epoch")
        metrics = self._measure()
        self.runner.call_hook("after_test_epoch", metrics=metrics)
        self.runner.call_hook("after_test")
        return metrics


@HOOKS.register_module()
class HardNegativesHook(ExactEpochResumeHook):
    """Replaces the neighbours by place with those by likeness every few epochs, and resumes exactly.

    Needs :class:`~perception.datasets.hard_negatives.HardNegativeBatchSampler`, whose epochs differ in length.

    Args:
        gallery, pairs: configs of data loaders of the training split's tiles and pairs, with the test pipeline.
        interval: epochs between two minings.
        candidates, keep: see :func:`~projects.unifygeo.evaluation.similar_tiles`.
    """

    def __init__(self, gallery: dict, pairs: dict, interval: int = 4, candidates: int = 130, keep: int = 128):
        self.gallery, self.pairs, self.interval = gallery, pairs, interval
        self.candidates, self.keep = candidates, keep
        self._epoch_start: int | None = None

    def before_train_epoch(self, runner: Runner) -> None:
        """Moves the batch sampler to what is left of the epoch."""
        if self._epoch_start is None:
            self._epoch_start = runner.iter
        runner.train_dataloader.batch_sampler.skip(runner.iter - self._epoch_start)

    def after_train_epoch(self, runner: Runner) -> None:
        """Mines, if it is time."""
        self._epoch_start = None
        if self.every_n_epochs(runner, self.interval) and runner.epoch + 1 < runner.max_epochs:
            runner.train_dataloader.batch_sampler.set_neighbours(self._mine(runner))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds the lists, and where the epoch began."""
        neighbours = runner.train_dataloader.batch_sampler.neighbours
        checkpoint["hard_negatives"] = dict(
            neighbours=torch.from_numpy(neighbours).to(torch.int32),
            epoch_start=-1 if self._epoch_start is None else self._epoch_start,
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes them up again, if this is a resumed run."""
        saved = checkpoint.get("hard_negatives")
        if saved is None or not runner._resume:
            return
        runner.train_dataloader.batch_sampler.set_neighbours(saved["neighbours"].long().numpy())
        self._epoch_start = None if saved["epoch_start"] < 0 else saved["epoch_start"]

    def _mine(self, runner: Runner):
        model = runner.model
        model.eval()
        gallery = runner.build_dataloader(self.gallery, seed=runner.seed)
        pairs = runner.build_dataloader(self.pairs, seed=runner.seed)
        tiles = describe_tiles(model, gallery)
        queries = examine_pairs(model, pairs)
        model.train()
        own = [pair.tiles[0] for pair in pairs.dataset.vigor.pairs]
        shown = [gallery.dataset.get_data_info(number)["tile"] for number in range(len(gallery.dataset))]
        sizes = dict(numbers=shown, num_tiles=len(gallery.dataset.vigor.tiles))
        return similar_tiles(own, queries.descriptors, tiles, self.candidates, self.keep, **sizes)


@HOOKS.register_module()
class RerankStageHook(Hook):
    """Trains the re-ranking loss from an epoch on, when mined tiles make it worth while.

    Args:
        begin: the first epoch, from 0, with the model's ``rerank_weight``; before it the weight is 0.
    """

    def __init__(self, begin: int):
        self.begin = begin
        self._weight: float | None = None

    def before_train_epoch(self, runner: Runner) -> None:
        """Sets the weight of the epoch."""
        core = getattr(runner.model, "module", runner.model)
        if self._weight is None:
            self._weight = core.rerank_weight
        core.rerank_weight = self._weight if runner.epoch >= self.begin else 0.0
