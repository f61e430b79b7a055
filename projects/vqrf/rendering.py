"""Rendering a file: no run, no checkpoint."""

from __future__ import annotations

import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from nerfstudio.cameras.rays import RayBundle
from PIL import Image
from torch import Tensor

from perception.engine.atomic import output_folder, replacing
from perception.engine.errors import UserError
from perception.engine.plain_pickle import load_tensors
from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.metrics import psnr, ssim
from perception.studio.camera_paths import read_camera_path
from perception.studio.datamanager import ray_range, unnormalised
from perception.studio.evaluation import mean
from perception.studio.progress import progress_bar
from perception.studio.scene import scene_views
from projects.vqrf.compression import field_of
from projects.vqrf.file_format import container

CHUNK = 8192  # rays rendered at once


def load_field(path: Path) -> tuple[DirectVoxGO, dict[str, Any]]:
    """The field of a `.vqrf` file, or of an imported `.pt` one, and what rendering needs besides.

    Raises:
        UserError: the file cannot be read.
    """
    if path.suffix != ".pt":
        compressed = container.read(path)
        try:
            return field_of(compressed), _checked(compressed.render)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"{path} does not describe a field: {error}") from None
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        content = load_tensors(path)
    except (OSError, pickle.UnpicklingError):
        raise UserError(f"{path} is not a file that `vqrf import` wrote, or it is cut short") from None
    try:
        state, render = content["state_dict"], content["render"]
        field = DirectVoxGO(state["xyz_min"], state["xyz_max"], **content["field"])
        field.set_mask(state["mask_cache.mask"])
        field.load_state_dict(state)
        render = _checked(render)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"{path} is not an imported field: {lines[0]}") from None
    return field, render


def _checked(render: dict[str, Any]) -> dict[str, Any]:
    """What rendering needs besides a field, if it is all there."""
    numbers = [render["near"], render["far"], render["stepsize"], *render["background"]]
    if not all(isinstance(number, (int, float)) for number in numbers) or len(numbers) != 6 or render["stepsize"] <= 0:
        raise ValueError(f"rendering with {render}")
    return render


@torch.no_grad()
def render_rays(field: DirectVoxGO, rays: RayBundle, render: dict[str, Any], background: Tensor) -> Tensor:
    """The colours (H, W, 3) of a picture's rays, as the model renders them in its run."""
    device, flat = field.xyz_min.device, rays.flatten()
    colours = []
    for start in range(0, len(flat), CHUNK):
        part = flat[start : start + CHUNK].to(device)
        shown = field(
            *unnormalised(part),
            **ray_range(part, render["near"]),
            stepsize=render["stepsize"],
            bg=background.to(device),
        )
        colours.append(shown["rgb_marched"].cpu())
    return torch.cat(colours).view(*rays.shape, 3)


def render_dataset(path: Path, data: Path, split: str, out: Path, device: str) -> dict[str, float]:
    """Render all views of a split into `out` as `NUMBER.png` and compare them with the images.

    Returns:
        Mean PSNR and SSIM, of the colours before they are rounded; PSNR of the pixels that masks leave where the scene
        has masks.

    Raises:
        UserError: the file or the scene cannot be read, or `out` not written.
    """
    field, render = load_field(path)
    field, background = field.to(device), torch.tensor(render["background"])
    views = scene_views(data, split, background, render.get("dataparser"))
    for index in range(len(views)):  # one that cannot be read is said before any is rendered
        views.get_numpy_image(index)
    output_folder(out)
    found: dict[str, list[float]] = defaultdict(list)
    with progress_bar(f"Rendering the {split} views", len(views)) as advance:
        for index in range(len(views)):
            rays = views.cameras.generate_rays(camera_indices=index, keep_shape=True)
            image, view = render_rays(field, rays, render, background), views[index]
            save_image(out / f"{index:04d}.png", image)
            target = view["image"]
            found["psnr"].append(float(psnr(image, target)))
            if "mask" in view:
                seen = view["mask"][..., 0].bool()
                found["psnr_masked"].append(float(psnr(image[seen], target[seen])))
            if min(target.shape[:2]) >= 11:
                found["ssim"].append(float(ssim(image, target)))
            advance()
    return {name: mean(values) for name, values in found.items()}


def render_camera_path(path: Path, camera_path: Path, out: Path, device: str) -> int:
    """Render the frames of a camera path that nerfstudio's viewer exported into `out`. Returns their number.

    Both eyes of a stereo camera are rendered and joined, and a crop is honoured, as `ns-render camera-path` does.

    Raises:
        UserError: the file or the camera path cannot be read, or `out` not written.
    """
    field, render = load_field(path)
    frames = read_camera_path(camera_path)
    field = field.to(device)
    background = torch.tensor(render["background"]) if frames.background is None else frames.background
    output_folder(out)
    with progress_bar("Rendering the camera path", len(frames)) as advance:
        for index in range(len(frames)):
            bundles = [
                eye.generate_rays(camera_indices=index, keep_shape=True, obb_box=frames.crop) for eye in frames.eyes
            ]
            pictures = [render_rays(field, rays, render, background) for rays in bundles]
            save_image(out / f"{index:05d}.png", frames.join(pictures))
            advance()
    return len(frames)


def save_image(path: Path, image: Tensor) -> None:
    """Write an image (H, W, 3) in [0, 1] as PNG, under a temporary name until it is complete."""
    pixels = (image.clamp(0, 1) * 255).round().byte().numpy()
    with replacing(path) as file:
        Image.fromarray(pixels).save(file, format="PNG")
