"""Training rays with the coverage of their pixels, and evaluation images with the true maps beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from perception.datasets.hdr_images import read_hdr
from perception.engine.errors import UserError
from perception.studio.datamanager import BackgroundDataset, RayDataManager, RayDataManagerConfig
from perception.studio.errors import SceneError
from perception.studio.images import FileStore, read_image
from perception.studio.tensoir_dataparser import MAPS


@dataclass
class MaterialDataManagerConfig(RayDataManagerConfig):
    """Data of a method that needs to know where the object is."""

    _target: type = field(default_factory=lambda: MaterialDataManager)


class MaterialDataset(BackgroundDataset):
    """Images with, of each that has them, ``alpha`` (H, W, 1) and ``true_albedo`` (linear), ``true_normal``,
    ``true_roughness`` and ``true_metallic``, and ``true_relit_NAME`` (H, W, 3) on white under each light map."""

    def get_metadata(self, data: dict) -> dict:
        """What is in the folder of an image, beside it."""
        index = data["image_idx"]
        found: dict[str, Tensor] = {}
        pixels = self.get_numpy_image(index)
        if pixels.shape[2] == 4:
            found["alpha"] = torch.from_numpy(pixels[..., 3:].astype(np.float32) / 255)
        if "folders" in self.metadata:
            found |= read_maps(Path(self.metadata["folders"][index]), self.metadata, pixels.shape[:2])
        return found


def read_maps(folder: Path, metadata: dict[str, Any], size: tuple[int, int]) -> dict[str, Tensor]:
    """The true maps (H, W, C) of a view in TensoIR's layout.

    Args:
        folder: of the view.
        metadata: of the data parser.
        size: height and width that they must have.

    Raises:
        SceneError: one of them cannot be read, or has another size.
    """
    found = {}
    for name in MAPS:
        path = _file(folder, name, metadata["albedo_format"] if name == "albedo" else "any")
        if path is not None:
            pixels = _pixels(path, size)
            if path.suffix == ".png":
                pixels = _from_png(name, pixels)
            found[f"true_{name}"] = pixels[..., : 3 if name in ("albedo", "normal") else 1]
    for light in metadata["lights"]:
        path = folder / f"rgba_{light}.png"
        if path.is_file():
            pixels = _pixels(path, size)
            if pixels.shape[2] == 4:
                pixels = pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
            found[f"true_relit_{light}"] = pixels
    return found


def _from_png(name: str, pixels: Tensor) -> Tensor:
    """What a picture (H, W, 1, 3 or 4) of TensoIR's means: albedo is linear there, and normals go from 0 to 1."""
    if name == "normal":
        return pixels[..., :3] * 2 - 1
    if name == "albedo" and pixels.shape[2] == 4:
        return pixels[..., :3] * pixels[..., 3:]
    return pixels


def _file(folder: Path, name: str, kind: str) -> Path | None:
    suffixes = ("exr", "png") if kind == "any" else (kind,)
    return next((path for path in (folder / f"{name}.{suffix}" for suffix in suffixes) if path.is_file()), None)


def _pixels(path: Path, size: tuple[int, int]) -> Tensor:
    """(H, W, 3 or 4) of a file: as it is from EXR, in [0, 1] from PNG."""
    if path.suffix == ".png":
        return torch.from_numpy(read_image(path, size, scaled=False).astype(np.float32) / 255)
    try:
        pixels = read_hdr(path)
    except UserError as error:
        raise SceneError(str(error)) from None
    if pixels.shape[:2] != size:
        raise SceneError(f"{path} is {pixels.shape[1]} x {pixels.shape[0]} pixels, but its image {size[1]} x {size[0]}")
    return torch.from_numpy(pixels)


class MaterialDataManager(RayDataManager):
    """See :class:`MaterialDataManagerConfig`. Batches of rays have ``alpha`` (N,) where the images have it."""

    config: MaterialDataManagerConfig

    def _dataset(self, outputs) -> InputDataset:
        return MaterialDataset(outputs, self.config.camera_res_scale_factor, background=self.background)

    def next_train(self, step: int) -> tuple[RayBundle, dict]:
        """Rays (N) of a training step, their ``image`` colours and ``indices``, and ``alpha``."""
        rays, batch = super().next_train(step)
        if isinstance(self.pixels, FileStore):
            alpha = self.pixels.coverage(self.pixels.numbers(batch["indices"]))
            if alpha is not None:
                batch["alpha"] = alpha
        return rays, batch
