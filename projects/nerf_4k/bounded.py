"""DirectVoxGO as the field of bounded scenes: what the decoder takes of its renderings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from perception.radiance.compositing import segment_sum
from perception.radiance.distortion import distortion_loss
from perception.radiance.dvgo import DirectVoxGO, DvgoRendering
from perception.radiance.dvgo_stages import make_fine
from perception.studio.dvgo_model import DvgoModel, DvgoModelConfig
from perception.studio.dvgo_stages import rebuild_fine, remember_pool, use_pool
from perception.studio.samplers import SamplerConfig
from perception.studio.training_run import TrainingRun


@dataclass
class BoundedFieldConfig(DvgoModelConfig):
    """DirectVoxGO, whose fine field a decoder may follow."""

    _target: type = field(default_factory=lambda: BoundedFieldModel)


class BoundedFieldModel(DvgoModel):
    """See :class:`BoundedFieldConfig`."""

    config: BoundedFieldConfig

    def fresh_field(self) -> DirectVoxGO:
        """A small field of the fine stage's settings."""
        box = (torch.zeros(3), torch.ones(3))
        return make_fine(*box, self.config.fine, align_corners=self.config.align_corners, num_voxels=64)

    def rebuild_field(self, state_dict: Mapping[str, Tensor]) -> None:
        """Give the field the shape that it has in a checkpoint."""
        rebuild_fine(self, state_dict)

    # What the decoder takes

    def small_picture(self, rendering: DvgoRendering) -> Tensor:
        """Colours (N, 3) on the scene's background."""
        return rendering.rgb_marched

    def small_depth(self, rendering: DvgoRendering) -> Tensor:
        """Expected step (N,), of as many as the grid is long; a ray across the box may have more."""
        return segment_sum(rendering.weights.detach() * self._places(rendering), rendering.ray_id, _rays(rendering))

    def distortion(self, rendering: DvgoRendering) -> Tensor:
        """Distortion loss of rendered rays."""
        places = self._places(rendering)
        return distortion_loss(rendering.weights, places, 1 / self._steps, rendering.ray_id)

    @property
    def _steps(self) -> int:
        return int((max(self.field.world_size) - 1) / self.config.stepsize) + 1

    def _places(self, rendering: DvgoRendering) -> Tensor:
        return (rendering.step_id + 0.5) / self._steps

    # Training

    def see_scene(self, run: TrainingRun) -> None:
        """Take over what belongs to the scene."""
        self.depth_range.copy_(torch.tensor(run.manager.depth_range[:2]))
        self.background.copy_(run.manager.background)

    def take_field(self, run: TrainingRun, loaded: DirectVoxGO) -> None:
        """Go on with the field of a file, whose network becomes the model's."""
        self.see_scene(run)
        self.rgbnet = loaded.rgbnet
        self.put_field(loaded)
        remember_pool(self)

    def start_patches(self, run: TrainingRun, start: int, sampler: SamplerConfig) -> None:
        """Train on the patches in which enough rays meet what the coarse field found."""
        use_pool(run, start, sampler)


def _rays(rendering: DvgoRendering) -> int:
    return len(rendering.alphainv_last)
