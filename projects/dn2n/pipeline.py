"""DN2N's pipeline: gives the model its source views, or those of an edit, and makes the samples of training steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig

from perception.studio.errors import SceneError
from projects.dn2n.datamanager import DN2NDataManager, DN2NDataManagerConfig
from projects.dn2n.model import DN2NModel, DN2NModelConfig
from projects.dn2n.training_views import training_sample


@dataclass
class DN2NPipelineConfig(VanillaPipelineConfig):
    """Settings of :class:`DN2NPipeline`."""

    _target: type = field(default_factory=lambda: DN2NPipeline)
    datamanager: DN2NDataManagerConfig = field(default_factory=DN2NDataManagerConfig)
    model: DN2NModelConfig = field(default_factory=DN2NModelConfig)
    edit: Path | None = None
    """Folder that `dn2n edit` wrote: pictures are rendered from its surviving views. Without one from the originals."""


class DN2NPipeline(VanillaPipeline):
    """A pipeline in two stages: `ns-train` trains, and with an edit it renders only."""

    config: DN2NPipelineConfig

    def __init__(self, config: DN2NPipelineConfig, device: str, test_mode: str = "val", **kwargs):
        if config.edit is not None and test_mode == "val":
            raise SceneError("--pipeline.edit is for rendering: an edit needs no training")
        super().__init__(config, device, test_mode, **kwargs)
        manager, model = cast(DN2NDataManager, self.datamanager), cast(DN2NModel, self.model)
        self.bank = manager.bank
        model.attach(self.bank)
        if test_mode == "val" and model.config.training.offline_edits:
            manager.find_offline_edits()
        if config.edit is not None:
            from projects.dn2n.editing import use_edit

            use_edit(self.bank, config.edit)

    def get_train_loss_dict(self, step: int):
        """Outputs, losses and metrics of a step."""
        model, manager = cast(DN2NModel, self.model), cast(DN2NDataManager, self.datamanager)
        rays, batch = manager.next_train(step)
        sample = training_sample(
            self.bank,
            batch["indices"],
            model.config.sources,
            model.config.training,
            seed=manager.seed * 2**22 + step,
        )
        rendered, losses, metrics = model.training_losses(sample, rays, step)
        return {"rgb": rendered.best.rgb}, losses, metrics
