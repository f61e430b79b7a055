"""COLMAP models, read where nerfstudio's parser asks a question or takes empty files for broken ones."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParser
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image

from perception.studio.coordinates import far_centre
from perception.studio.errors import SceneError
from perception.studio.findings import counted

# Names of a split's list of images, in the order in which they stand in for each other.
LISTS = {
    "train": ("train_list.txt",),
    "val": ("val_list.txt", "validation_list.txt", "test_list.txt"),
    "test": ("test_list.txt", "val_list.txt", "validation_list.txt"),
}
LARGEST_SIDE = 1600  # pixels, beyond which nerfstudio looks for smaller images by itself


class StatedColmap(ColmapDataParser):
    """nerfstudio's parser, which besides

    * says which folder of smaller images is missing where nobody is there to answer a question;
    * does without 3D points where the model has none;
    * reads `validation_list.txt`, and lets lists of validation and test images stand in for each other;
    * moves poses far from the origin to it in double precision.
    """

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs):
        self._check_model()
        return super()._generate_dataparser_outputs(split, **kwargs)

    def _check_model(self) -> None:
        folder = self.config.data / self.config.colmap_path
        if folder.is_dir():
            return
        for other in ("colmap/sparse/0", "sparse/0", "colmap/sparse", "sparse", "colmap"):
            if any((self.config.data / other / f"cameras{suffix}").is_file() for suffix in (".bin", ".txt")):
                raise SceneError(f"there is no COLMAP model at {folder}: add --colmap-path {other} after `colmap`")
        raise SceneError(f"there is no COLMAP model at {folder}: name its folder with --colmap-path after `colmap`")

    def _get_all_images_and_cameras(self, recon_dir: Path):
        content = super()._get_all_images_and_cameras(recon_dir)
        positions = np.stack([frame["transform_matrix"][:3, 3] for frame in content["frames"]])
        if not np.isfinite(positions).all():
            raise SceneError(f"{recon_dir} has poses with numbers that are not finite")
        if (centre := far_centre(positions)) is not None:
            for frame in content["frames"]:
                frame["transform_matrix"][:3, 3] -= centre
            applied = np.array(content.get("applied_transform", np.eye(4)[:3]))
            applied[:, 3] -= centre
            content["applied_transform"] = applied.tolist()
        return content

    def _get_image_indices(self, image_filenames, split):
        folder = self.config.data
        if not any((folder / name).is_file() for names in LISTS.values() for name in names):
            return super()._get_image_indices(image_filenames, split)
        path = next((folder / name for name in LISTS[split] if (folder / name).is_file()), None)
        if path is None:
            raise SceneError(f"{folder} has lists of images, but no {' or '.join(LISTS[split])}")
        wanted = [folder / self.config.images_path / name for name in path.read_text(encoding="utf-8").splitlines()]
        wanted = [name for name in wanted if name != folder / self.config.images_path]  # empty lines
        places = {name: index for index, name in enumerate(image_filenames)}
        if unknown := [name for name in wanted if name not in places]:
            raise SceneError(counted([f"{path} names {name}, which the COLMAP model has not" for name in unknown]))
        return np.array(sorted({places[name] for name in wanted}), dtype=np.int32)

    def _setup_downscale_factor(self, image_filenames, mask_filenames, depth_filenames):
        if self._downscale_factor is None and not sys.stdin.isatty():
            self._demand_small_images(image_filenames[0])
        return super()._setup_downscale_factor(image_filenames, mask_filenames, depth_filenames)

    def _demand_small_images(self, first: Path) -> None:
        if not first.is_file():
            raise SceneError(f"the COLMAP model names {first.name}, but there is no image {first}")
        factor = self.config.downscale_factor
        if factor is None:
            with Image.open(first) as image:
                side = max(image.size)
            factor = 1
            while side / factor > LARGEST_SIDE:
                factor *= 2
        images = self.config.data / self.config.images_path
        smaller = images.with_name(f"{images.name}_{factor}")
        if factor > 1 and not smaller.is_dir():
            wish = "the images are large" if self.config.downscale_factor is None else f"--downscale-factor {factor}"
            raise SceneError(
                f"{smaller} is missing ({wish}): put the images there, {factor} times smaller, or add "
                "--downscale-factor 1 after `colmap` to take them as they are"
            )

    def _load_3D_points(self, colmap_path: Path, transform_matrix, scale_factor: float):
        try:
            return super()._load_3D_points(colmap_path, transform_matrix, scale_factor)
        except (ValueError, RuntimeError, IndexError) as error:
            # Only methods that start from points need them.
            CONSOLE.log(f"[yellow]{colmap_path} has no 3D points that can be read ({error}): none are used")
            return {}
