"""InstructPix2Pix through diffusers, with weights from a local folder: an optional editor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.engine.errors import UserError
from projects.dn2n.editor_settings import EditorSettings
from projects.dn2n.perturbation import seeded

MULTIPLE = 8  # of pixels on each side, which the autoencoder wants


class InstructPix2Pix:
    """Edits by an instruction ("make it snow"), each view with a seed of its own.

    Uses ``weights``, ``steps``, ``guidance_scale`` and ``image_guidance_scale`` of the settings.

    Raises:
        UserError: diffusers is not installed, or the folder holds no such weights.
    """

    name, version, deterministic, requires_weights = "ip2p", 1, False, True

    def __init__(self, settings: EditorSettings):
        try:
            from diffusers import StableDiffusionInstructPix2PixPipeline
        except ImportError:
            raise UserError("the editor ip2p needs diffusers: pip install 'perception[editors]'") from None
        if settings.weights is None or not (settings.weights / "model_index.json").is_file():
            raise UserError(
                "the editor ip2p needs --editor-weights, a local folder of InstructPix2Pix in diffusers' layout (with "
                f"model_index.json), not {settings.weights}: nothing is downloaded"
            )
        self.settings = settings
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
            str(settings.weights), local_files_only=True, safety_checker=None
        ).to(self.device)
        self._pipeline.set_progress_bar_config(disable=True)

    def edit(self, images: Tensor, prompt: str, source_caption: str | None, seed: int, view_ids: list[int]) -> Tensor:
        """See :class:`~projects.dn2n.editors.ImageEditor`; ``source_caption`` is not used."""
        height, width = images.shape[-2:]
        size = [max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE) for side in (height, width)]
        edited = []
        for image, view in zip(images, view_ids):
            resized = F.interpolate(image[None], size=size, mode="bicubic", antialias=True).clamp(0, 1)
            result = self._pipeline(
                prompt,
                image=resized,
                num_inference_steps=self.settings.steps,
                guidance_scale=self.settings.guidance_scale,
                image_guidance_scale=self.settings.image_guidance_scale,
                generator=seeded(seed, view),
                output_type="pt",
            ).images
            edited.append(F.interpolate(result.float().cpu(), size=(height, width), mode="bicubic", antialias=True)[0])
        return torch.stack(edited).clamp(0, 1).to(images)
