"""What one training step sees: a target, its sources perturbed once or twice, and a neighbouring camera."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from projects.dn2n.bank import SourceBank
from projects.dn2n.captions import TemplatePrompts
from projects.dn2n.editors import ClassicalEditor, EditorSettings
from projects.dn2n.perturbation import perturb_views, seeded
from projects.dn2n.settings import TrainingSettings
from projects.dn2n.sources import SourceSettings, neighbour_of, training_sources


class TrainingSample(NamedTuple):
    """See :func:`training_sample`. One entry per source set in ``images`` and ``cameras``."""

    seed: int
    near: float
    far: float
    target_camera: Tensor  # (34,)
    neighbour_camera: Tensor  # (34,)
    colours: Tensor  # (N, 3) clean target colours of the step's pixels
    images: list[Tensor]  # (V, 3, H, W) perturbed
    cameras: list[Tensor]  # (V, 34)

    def to(self, device: torch.device | str) -> TrainingSample:
        """The same on a device."""
        tensors = {name: getattr(self, name).to(device) for name in ("target_camera", "neighbour_camera", "colours")}
        lists = {name: [part.to(device) for part in getattr(self, name)] for name in ("images", "cameras")}
        return self._replace(**tensors, **lists)


def training_sample(
    bank: SourceBank, indices: Tensor, sources: SourceSettings, settings: TrainingSettings, *, seed: int
) -> TrainingSample:
    """The sample of a step: a function of the seed, which stands for run and step.

    In *identity* mode the target is the original view, and where the scene has edits that were made beforehand, each
    source set is taken from another one of them. In *style* mode one classical edit, the same for all, is applied
    to target and sources first: the target is consistent with the sources, in colours far from natural images.

    Args:
        bank: of the training views.
        indices: (N, 3) view, row and column of the target's pixels; one view.
        sources: choice of source views.
        settings: of the training phase.
        seed: of all draws.
    """
    view = int(indices[0, 0])
    scene = bank.scene_of(view)
    span, beforehand = bank.scenes[scene], bank.offline.get(scene)
    centres = bank.poses[span.start : span.end, :3, 3]
    sets = training_sources(view - span.start, centres, sources, seed=seed)[: settings.source_sets]
    random = seeded(seed, 41)
    styled = float(torch.rand(1, generator=random)) < settings.style_probability
    target, images = bank.image(view), [bank.images((part + span.start).tolist()) for part in sets]
    if styled:
        prompts = TemplatePrompts().targets("a photo of a scene", settings.style_prompts)
        prompt = prompts[int(torch.randint(len(prompts), (1,), generator=random))]
        strength = float(0.5 + 0.5 * torch.rand(1, generator=random))
        editor = ClassicalEditor(EditorSettings(strength=strength))
        target = editor.edit(target[None], prompt, None, seed, [view])[0]
        images = [editor.edit(part, prompt, None, seed, part_views.tolist()) for part, part_views in zip(images, sets)]
    if settings.perturbation.probability > 0:
        images = [
            perturb_views(part, settings.perturbation, seed=2 * seed + number, views=views.tolist())
            for number, (part, views) in enumerate(zip(images, sets))
        ]
    if beforehand is not None and not styled:
        edits = torch.randperm(len(beforehand.prompts), generator=random)[: len(sets)].tolist()
        images[: len(edits)] = [
            beforehand.put(part, views.tolist(), edit) for part, views, edit in zip(images, sets, edits)
        ]
    neighbour = span.start + neighbour_of(view - span.start, centres, sources, seed=seed)
    return TrainingSample(
        seed,
        span.near,
        span.far,
        bank.cameras[view],
        bank.cameras[neighbour],
        target[:, indices[:, 1], indices[:, 2]].T,
        images,
        [bank.cameras[span.start : span.end][part] for part in sets],
    )
