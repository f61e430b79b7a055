"""Editors by diffusion models, through diffusers and with weights from a local folder: optional."""

from __future__ import annotations

from difflib import SequenceMatcher

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.engine.errors import UserError
from projects.dn2n.editor_settings import EditorSettings
from projects.dn2n.perturbation import seeded

MULTIPLE = 8  # of pixels on each side, which the autoencoder wants


def local_pipeline(editor: str, kind: str, model: str, settings: EditorSettings):
    """A pipeline of diffusers from the folder that the settings name.

    Args:
        editor: name of the editor, for messages.
        kind: class of diffusers.
        model: what the weights are of, for messages.
        settings: of the editor.

    Raises:
        UserError: diffusers is not installed, or the folder holds no such weights.
    """
    try:
        import diffusers
    except ImportError:
        raise UserError(f"the editor {editor} needs diffusers: pip install 'perception[editors]'") from None
    if settings.steps < 1:
        raise UserError(f"the editor's steps must be at least 1, not {settings.steps}")
    folder = settings.weights
    if folder is None or not (folder / "model_index.json").is_file():
        raise UserError(
            f"the editor {editor} needs --editor-weights, a local folder of {model} in diffusers' layout (with "
            f"model_index.json), not {folder}: nothing is downloaded"
        )
    try:
        pipeline = getattr(diffusers, kind).from_pretrained(str(folder), local_files_only=True, safety_checker=None)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise UserError(f"{folder} holds no {model} that diffusers can load: {error}") from None
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def _to_multiple(image: Tensor) -> Tensor:
    """An image (1, 3, H, W) at the nearest size that the autoencoder takes."""
    size = [max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE) for side in image.shape[-2:]]
    return F.interpolate(image, size=size, mode="bicubic", antialias=True).clamp(0, 1)


def _to_size(image: Tensor, like: Tensor) -> Tensor:
    """An edited image (1, 3, h, w) at the size, and of the kind, of another (3, H, W)."""
    resized = F.interpolate(image.float().cpu(), size=like.shape[-2:], mode="bicubic", antialias=True)
    return resized[0].clamp(0, 1).to(like)


class InstructPix2Pix:
    """Edits by an instruction ("make it snow"), each view with a seed of its own.

    Uses ``weights``, ``steps``, ``guidance_scale`` and ``image_guidance_scale`` of the settings.

    Raises:
        UserError: diffusers is not installed, or the folder holds no such weights.
    """

    name, version, deterministic, requires_weights = "ip2p", 1, False, True

    def __init__(self, settings: EditorSettings):
        self.settings = settings
        self._pipeline = local_pipeline(
            self.name, "StableDiffusionInstructPix2PixPipeline", "InstructPix2Pix", settings
        )

    def edit(self, images: Tensor, prompt: str, source_caption: str | None, seed: int, view_ids: list[int]) -> Tensor:
        """See :class:`~projects.dn2n.editors.ImageEditor`; ``source_caption`` is not used."""
        edited = []
        for image, view in zip(images, view_ids):
            result = self._pipeline(
                prompt,
                image=_to_multiple(image[None]),
                num_inference_steps=self.settings.steps,
                guidance_scale=self.settings.guidance_scale,
                image_guidance_scale=self.settings.image_guidance_scale,
                generator=seeded(seed, view),
                output_type="pt",
            ).images
            edited.append(_to_size(result, image))
        return torch.stack(edited)


class NullText:
    """Null-text inversion (Mokady et al., CVPR 2023) with prompt-to-prompt attention (Hertz et al., ICLR 2023), on a
    Stable Diffusion: from a caption of the image to that of the edited one.

    DDIM is run backwards with the source caption; then the embedding of the empty text is optimised at each step, so
    that the guided way back meets that trajectory; then the target caption goes the same way, with the attention of the
    source where both have the same words. It draws nothing at random: a seed changes nothing.

    Uses ``weights``, ``steps``, ``guidance_scale``, ``inner_steps``, ``cross_share`` and ``self_share`` of the
    settings.

    Raises:
        UserError: diffusers is not installed, the folder holds no such weights, or a setting is impossible.
    """

    name, version, deterministic, requires_weights = "null_text", 1, True, True

    def __init__(self, settings: EditorSettings):
        if settings.inner_steps < 0:
            raise UserError(f"the editor's inner steps must not be negative, not {settings.inner_steps}")
        for option in ("cross_share", "self_share"):
            if not 0 <= getattr(settings, option) <= 1:
                raise UserError(f"the editor's {option} must be in [0, 1], not {getattr(settings, option)}")
        self.settings = settings
        self._pipeline = pipeline = local_pipeline(self.name, "StableDiffusionPipeline", "Stable Diffusion", settings)
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            part.requires_grad_(False)
        self._velocity = pipeline.scheduler.config.prediction_type == "v_prediction"
        # Noise levels, the cleanest first, and the time of each step from one to the level above it.
        alphas = pipeline.scheduler.alphas_cumprod.double()
        if settings.steps >= len(alphas):
            raise UserError(f"the editor's steps must be less than the {len(alphas)} of its model's training")
        self._times = [1 + number * (len(alphas) // settings.steps) for number in range(settings.steps)]
        self._alphas = [float(alphas[time]) for time in [0, *self._times]]

    def edit(self, images: Tensor, prompt: str, source_caption: str | None, seed: int, view_ids: list[int]) -> Tensor:
        """See :class:`~projects.dn2n.editors.ImageEditor`; ``seed`` is not used."""
        captions = (source_caption or "", prompt)
        return torch.stack([_to_size(self._edit(_to_multiple(image[None]), *captions), image) for image in images])

    @torch.no_grad()
    def _edit(self, image: Tensor, source: str, target: str) -> Tensor:
        pipeline = self._pipeline
        words = [self._tokens(text) for text in (source, target)]
        before, after, nothing = (self._embedding(ids) for ids in (*words, self._tokens("")))
        noisy = self._inverted(self._encoded(image), before)
        empty = self._null_texts(noisy, before, nothing)
        attention = SharedAttention(words[0], words[1], self.settings.cross_share, self.settings.self_share)
        own = pipeline.unet.attn_processors
        pipeline.unet.set_attn_processor(attention)
        try:
            latents = torch.cat([noisy[-1]] * 2)
            for level in reversed(range(1, len(noisy))):
                attention.progress = 1 - level / (len(noisy) - 1)
                texts = torch.cat([empty[level - 1]] * 2 + [before, after])
                plain, guided = self._noise(torch.cat([latents] * 2), level, texts).chunk(2)
                noise = plain + self.settings.guidance_scale * (guided - plain)
                latents = self._moved(latents, noise, level, level - 1)
        finally:
            pipeline.unet.set_attn_processor(own)
        decoded = pipeline.vae.decode(latents[1:] / pipeline.vae.config.scaling_factor).sample
        return decoded.float() / 2 + 0.5

    def _tokens(self, text: str) -> list[int]:
        tokenizer = self._pipeline.tokenizer
        return tokenizer(text, padding="max_length", max_length=tokenizer.model_max_length, truncation=True).input_ids

    def _embedding(self, tokens: list[int]) -> Tensor:
        return self._pipeline.text_encoder(torch.tensor([tokens], device=self._pipeline.device))[0]

    def _encoded(self, image: Tensor) -> Tensor:
        vae = self._pipeline.vae
        return vae.encode((2 * image - 1).to(vae.device, vae.dtype)).latent_dist.mean * vae.config.scaling_factor

    def _noise(self, latents: Tensor, level: int, texts: Tensor) -> Tensor:
        """The noise in latents of a level, from 1 on, or of the one below."""
        time = self._times[level - 1]
        found = self._pipeline.unet(latents, time, encoder_hidden_states=texts).sample
        if self._velocity:
            alpha = self._alphas[level]
            found = alpha**0.5 * found + (1 - alpha) ** 0.5 * latents
        return found

    def _moved(self, latents: Tensor, noise: Tensor, level: int, to: int) -> Tensor:
        """DDIM without randomness, from one level to another, in either direction."""
        here, there = self._alphas[level], self._alphas[to]
        clean = (latents - (1 - here) ** 0.5 * noise) / here**0.5
        return there**0.5 * clean + (1 - there) ** 0.5 * noise

    def _inverted(self, latents: Tensor, text: Tensor) -> list[Tensor]:
        """Latents of all levels, from those of an image on."""
        found = [latents]
        for level in range(1, len(self._alphas)):
            noise = self._noise(found[-1], level, text)
            found.append(self._moved(found[-1], noise, level - 1, level))
        return found

    def _null_texts(self, trajectory: list[Tensor], text: Tensor, nothing: Tensor) -> list[Tensor]:
        """Embeddings of the empty text, one for the step down to each level, that lead along a trajectory."""
        scale, steps = self.settings.guidance_scale, len(trajectory) - 1
        latents, empty, found = trajectory[-1], nothing, []
        for level in reversed(range(1, steps + 1)):
            done = (steps - level) / steps
            guided = self._noise(latents, level, text)
            with torch.enable_grad():
                empty = empty.detach().clone().requires_grad_(True)
                optimizer = torch.optim.Adam([empty], lr=1e-2 * (1 - done / 2))
                for _ in range(self.settings.inner_steps):
                    plain = self._noise(latents, level, empty)
                    moved = self._moved(latents, plain + scale * (guided - plain), level, level - 1)
                    loss = F.mse_loss(moved, trajectory[level - 1])
                    if float(loss.detach()) < 1e-5 * (1 + 100 * done):
                        break
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            empty = empty.detach()
            plain = self._noise(latents, level, empty)
            latents = self._moved(latents, plain + scale * (guided - plain), level, level - 1)
            found.append(empty)
        return found[::-1]


class SharedAttention:
    """Attention of a batch of four, source and target without text and with it: the last takes over from the third.

    In the first steps it takes over which places look at which places, and, for words that both captions have in the
    same order, which places look at which words.

    Args:
        source, target: tokens of both captions.
        cross_share, self_share: of the steps in which it takes over the attention to words, and to places.

    Attributes:
        progress: share of the steps that are done.
    """

    MOST_PLACES = 1024  # of layers whose attention to places is taken over: finer ones carry texture

    def __init__(self, source: list[int], target: list[int], cross_share: float, self_share: float):
        blocks = SequenceMatcher(None, source, target, autojunk=False).get_matching_blocks()
        self._source = [block.a + number for block in blocks for number in range(block.size)]
        self._target = [block.b + number for block in blocks for number in range(block.size)]
        self._cross_share, self._self_share = cross_share, self_share
        self.progress = 0.0

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **kwargs):
        """As diffusers calls it for a layer of attention."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attn.head_to_batch_dim(part) for part in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        weights = attn.get_attention_scores(query, key, attention_mask)  # (4 heads, places, places or words)
        weights = weights.unflatten(0, (4, -1))
        if encoder_hidden_states is None:
            if self.progress < self._self_share and weights.shape[-1] <= self.MOST_PLACES:
                weights = torch.cat([weights[:3], weights[2:3]])
        elif self.progress < self._cross_share:
            taken = weights[3].clone()
            taken[..., self._target] = weights[2][..., self._source]
            weights = torch.cat([weights[:3], taken[None]])
        found = attn.batch_to_head_dim(weights.flatten(0, 1) @ value)
        return attn.to_out[1](attn.to_out[0](found))
