"""The files from which a run starts: an encoder, a decoder or its trunk, and VGG19's weights for the losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from nerfstudio.utils.rich_utils import CONSOLE

from perception.engine.errors import UserError
from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.mpi import DirectMPIGO
from perception.studio.errors import SceneError
from projects.nerf_4k.converter import read_parts, start_trunk
from projects.nerf_4k.decoder import SFTNet
from projects.nerf_4k.discriminator import UNetDiscriminatorSN
from projects.nerf_4k.losses import VGG_FILE, VggFeatures

if TYPE_CHECKING:
    from projects.nerf_4k.model import EnlargingModel


class HasSettings(Protocol):
    """A network that knows the arguments it was made with."""

    def settings(self) -> dict[str, Any]: ...


@dataclass
class Starts:
    """What was read; networks without a file stay as they are."""

    encoder: DirectMPIGO | DirectVoxGO | None = None
    decoder: SFTNet | None = None
    discriminator: UNetDiscriminatorSN | None = None
    vgg: VggFeatures | None = None

    def fill(self, model: EnlargingModel) -> None:
        """Give the model's decoder and discriminator the weights that were read."""
        for own, read in ((model.decoder, self.decoder), (model.discriminator, self.discriminator)):
            if own is not None and read is not None:
                own.load_state_dict(read.state_dict())


def read_starts(model: EnlargingModel) -> Starts:
    """Read what a run that is about to train needs: of a resumed one only VGG19's weights.

    Raises:
        SceneError: a file cannot be read, holds something else or networks of other sizes; or a run that compared
            VGG19's features is to go on without them.
    """
    starts = Starts()
    if not model.decodes:
        try:
            _read_networks(starts, model)
        except UserError as error:
            raise SceneError(str(error)) from error
    starts.vgg = _read_vgg(model)
    return starts


def _read_networks(starts: Starts, model: EnlargingModel) -> None:
    from perception.engine.checkpoint import load_checkpoint_file  # imports MMEngine

    config = model.config
    if config.encoder_weights is not None:
        parts = read_parts(load_checkpoint_file(config.encoder_weights))
        starts.encoder = parts.encoder
        if not isinstance(parts.encoder, type(model.field)):
            held = "no encoder" if parts.encoder is None else f"a {type(parts.encoder).__name__}"
            raise SceneError(
                f"--pipeline.model.encoder-weights: {config.encoder_weights} holds {held}, but this method has a "
                f"{type(model.field).__name__}"
            )
        _same_sizes(parts.encoder, model.fresh_field(), config.encoder_weights)
    if config.decoder_weights is not None:
        parts = read_parts(load_checkpoint_file(config.decoder_weights))
        if parts.decoder is None:
            raise SceneError(f"--pipeline.model.decoder-weights: {config.decoder_weights} holds no decoder")
        _same_sizes(parts.decoder, model.decoder, config.decoder_weights)
        starts.decoder, starts.discriminator = parts.decoder, parts.discriminator
        if model.discriminator is not None and starts.discriminator is not None:
            _same_sizes(starts.discriminator, model.discriminator, config.decoder_weights)
    if config.generator_weights is not None:
        starts.decoder = SFTNet(**model.decoder.settings())
        starts.decoder.load_state_dict(model.decoder.state_dict())
        taken, left = start_trunk(starts.decoder, load_checkpoint_file(config.generator_weights))
        CONSOLE.log(
            f"The decoder starts with {len(taken)} weights of {config.generator_weights}; its {len(left)} others "
            "(SFT, CondNet) are new"
        )


def _same_sizes(read: HasSettings, own: HasSettings, path: Path) -> None:
    theirs, ours = read.settings(), own.settings()
    theirs.pop("num_voxels", None)  # a grid may have any resolution
    differing = [
        f"{name} {value} there, {ours[name]} here" for name, value in theirs.items() if not _alike(value, ours[name])
    ]
    if differing:
        raise SceneError(f"{path} holds a {type(read).__name__} of other settings: {'; '.join(differing)}")


def _alike(first: Any, second: Any) -> bool:
    return math.isclose(first, second, rel_tol=1e-6) if isinstance(first, float) else first == second


def _read_vgg(model: EnlargingModel) -> VggFeatures | None:
    settings = model.config.joint
    if not settings.uses_vgg:
        return None
    path = settings.vgg_weights or Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE
    if path.is_file():
        if model.decodes and not model.compares_features:
            CONSOLE.log("The run began without VGG19's weights and goes on without them.")
            return None
        try:
            return VggFeatures.from_file(path)
        except UserError as error:
            raise SceneError(f"--pipeline.model.joint.vgg-weights: {error}") from error
    if settings.vgg_weights is not None:
        raise SceneError(f"--pipeline.model.joint.vgg-weights: there is no file {path}")
    if model.decodes and model.compares_features:
        raise SceneError(
            f"the run compared VGG19's features, whose weights are not at {path} any more: name them with "
            "--pipeline.model.joint.vgg-weights"
        )
    CONSOLE.log(
        f"The perceptual and style losses are left out: VGG19's weights ({VGG_FILE}) are not at {path}. The other "
        "losses remain."
    )
    return None
