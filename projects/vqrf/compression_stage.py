"""The last stage: prune, quantise, fine-tune together, write the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from perception.studio.dvgo_stages import rebuild_fine, remember_pool, use_pool
from perception.studio.errors import SceneError
from perception.studio.evaluation import measure_split
from perception.studio.progress import progress_bar
from perception.studio.stages import Stage
from perception.studio.training_run import TrainingRun
from projects.vqrf.codebook import synchronise_groups
from projects.vqrf.pruning import importance_scores, split_voxels
from projects.vqrf.settings import CompressionSettings

if TYPE_CHECKING:
    from projects.vqrf.model import VqrfModel


class CompressionStage(Stage["VqrfModel", CompressionSettings]):
    """Fine-tunes the field in the form that its file will have."""

    def __init__(self, name: str, settings: CompressionSettings):
        super().__init__(name, settings)
        self._before: dict[str, float] = {}  # metrics, for the report of this process alone

    def start(self, run: TrainingRun[VqrfModel]) -> None:
        self._before = _measure(run, "before compression")
        self._choose_voxels(run)
        self._learn_codebook(run)
        model = run.model
        remember_pool(model)  # of the fine field, whose free space has not been cut to the remaining voxels yet
        self.take_up(run)
        network = {name: value.clone() for name, value in model.rgbnet.state_dict().items()}
        model.reformat()
        model.rgbnet.load_state_dict(network)  # it is rounded to half precision only at the end
        run.scale_rates(self.settings.lr_factor)

    def take_up(self, run: TrainingRun[VqrfModel]) -> None:
        use_pool(run, self.span.start)

    @torch.no_grad()
    def after_step(self, run: TrainingRun[VqrfModel], local: int) -> None:
        if local % self.settings.sync_every == 0:
            model = run.model
            non_prune = None if self.settings.sync_include_pruned else model.non_prune
            synchronise_groups(model.field.k0.table(), model.groups, model.vq.embed, non_prune)

    def finish(self, run: TrainingRun[VqrfModel]) -> None:
        from projects.vqrf.report import write_report

        compressed = run.model.reformat()
        numbers = [number for part in (compressed.density, compressed.kept) for number in part[1:]]  # scale, zero point
        run.model.quantization = torch.tensor(numbers, dtype=torch.float64)
        after = _measure(run, "after compression")
        write_report(run.trainer.base_dir, compressed, before=self._before, after=after)
        run.trainer.save_checkpoint(run.step)

    def rebuild(self, model: VqrfModel, state_dict: Mapping[str, Tensor]) -> None:
        rebuild_fine(model, state_dict)

    def _choose_voxels(self, run: TrainingRun[VqrfModel]) -> None:
        model, views = run.model, run.manager.training_views()
        with progress_bar("Importance of voxels", views.num_rays) as advance:
            scores = importance_scores(
                model.field, views, near=model.near, stepsize=model.config.stepsize, on_rays=advance
            )
        try:
            classes = split_voxels(scores, self.settings.importance_prune, self.settings.importance_keep)
        except ValueError as error:
            raise SceneError(f"{error}: check the poses and near/far, or train the fine stage for longer") from None
        model.importance, model.non_prune, model.keep = scores, classes.non_prune, classes.keep
        CONSOLE.log(
            f"Of {len(scores)} voxels {int(classes.non_prune.sum())} remain, "
            f"{int(classes.keep.sum())} of them without a codebook"
        )

    def _learn_codebook(self, run: TrainingRun[VqrfModel]) -> None:
        model, settings = run.model, self.settings
        features = model.field.k0.table()[model.classes.vq]
        with progress_bar("Codebook", settings.codebook_iters) as advance:
            model.vq.initialise(
                features,
                model.importance[model.classes.vq],
                steps=settings.codebook_iters,
                batch=settings.codebook_batch,
                generator=torch.Generator(features.device).manual_seed(run.manager.seed),
                on_progress=advance,
            )


def _measure(run: TrainingRun[VqrfModel], when: str) -> dict[str, float]:
    split = run.model.config.report_split
    if split == "none":
        return {}
    metrics = measure_split(run.pipeline, split)
    shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    CONSOLE.log(f"{split} views {when}: {shown}")
    return metrics
