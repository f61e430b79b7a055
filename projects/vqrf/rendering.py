"""Rendering a file: no run, no checkpoint."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from nerfstudio.cameras.camera_paths import get_path_from_json
from nerfstudio.cameras.cameras import Cameras
from PIL import Image
from torch import Tensor

from perception.engine.atomic import replacing
from perception.engine.errors import UserError
from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.metrics import psnr, ssim
from perception.studio.datamanager import unnormalised
from perception.studio.scene import scene_views
from perception.studio.stages import progress_bar
from projects.vqrf import container
from projects.vqrf.decode import field_of

CHUNK = 8192  # rays rendered at once


def load_field(path: Path) -> tuple[DirectVoxGO, dict[str, Any]]:
    """The field of a `.vqrf` file, or of an imported `.pt` one, and what rendering needs besides.

    Raises:
        UserError: the file cannot be read.
    """
    if path.suffix != ".pt":
        compressed = container.read(path)
        try:
            return field_of(compressed), compressed.render
        except (ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"{path} does not describe a field: {error}") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content["state_dict"]
        field = DirectVoxGO(state["xyz_min"], state["xyz_max"], **content["field"])
        field.set_mask(state["mask_cache.mask"])
        field.load_state_dict(state)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not an imported field: {error}") from None
    return field, content["render"]


@torch.no_grad()
def render_view(field: DirectVoxGO, cameras: Cameras, index: int, render: dict[str, Any]) -> Tensor:
    """One view (H, W, 3), as the model renders it in its run."""
    device = field.xyz_min.device
    rays = cameras.generate_rays(camera_indices=index, keep_shape=True)
    rays_o, rays_d, viewdirs = (part.reshape(-1, 3).to(device) for part in unnormalised(rays))
    background = torch.tensor(render["background"], device=device)
    settings = dict(near=render["near"], stepsize=render["stepsize"], bg=background)
    chunks = zip(rays_o.split(CHUNK), rays_d.split(CHUNK), viewdirs.split(CHUNK))
    colours = torch.cat([field(*chunk, **settings)["rgb_marched"] for chunk in chunks])
    return colours.view(*rays.shape, 3).cpu()


def render_dataset(path: Path, folder: Path, split: str, out: Path, device: str) -> dict[str, float]:
    """Render all views of a split into `out` as `NUMBER.png` and compare them with the images.

    Returns:
        Mean PSNR and SSIM, of the colours before they are rounded.

    Raises:
        UserError: the file or the scene cannot be read.
    """
    field, render = load_field(path)
    field = field.to(device)
    views = scene_views(folder, split, torch.tensor(render["background"]), render.get("dataparser"))
    out.mkdir(parents=True, exist_ok=True)
    sums: dict[str, float] = defaultdict(float)
    with progress_bar(f"Rendering the {split} views", len(views)) as advance:
        for index in range(len(views)):
            image, target = render_view(field, views.cameras, index, render), views[index]["image"]
            save_image(out / f"{index:04d}.png", image)
            sums["psnr"] += float(psnr(image, target))
            if min(target.shape[:2]) >= 11:
                sums["ssim"] += float(ssim(image, target))
            advance()
    return {name: total / len(views) for name, total in sums.items()}


def render_camera_path(path: Path, camera_path: Path, out: Path, device: str) -> int:
    """Render the frames of a camera path that nerfstudio's viewer exported into `out`. Returns their number.

    Raises:
        UserError: the file or the camera path cannot be read.
    """
    field, render = load_field(path)
    try:
        cameras = get_path_from_json(json.loads(camera_path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{camera_path} is not a camera path of nerfstudio: {error!r}") from None
    field = field.to(device)
    out.mkdir(parents=True, exist_ok=True)
    with progress_bar("Rendering the camera path", len(cameras)) as advance:
        for index in range(len(cameras)):
            save_image(out / f"{index:05d}.png", render_view(field, cameras, index, render))
            advance()
    return len(cameras)


def save_image(path: Path, image: Tensor) -> None:
    """Write an image (H, W, 3) in [0, 1] as PNG, under a temporary name until it is complete."""
    pixels = (image.clamp(0, 1) * 255).round().byte().numpy()
    with replacing(path) as file:
        Image.fromarray(pixels).save(file, format="PNG")
