"""Training rays from images that stay as they are on disk: 8 bit, with their alpha channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import tyro
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader
from nerfstudio.model_components.ray_generators import RayGenerator
from torch import Tensor

from perception.studio.depth_range import DepthRange
from perception.studio.devices import say_device
from perception.studio.errors import SceneError
from perception.studio.exporting import BatchSize, PathEvalDataloader, rays_within_pixels
from perception.studio.images import ImageStore, LazyPixelStore, PixelStore, read_image
from perception.studio.parsers import read_by
from perception.studio.samplers import (
    PixelSampler,
    PoolSampler,
    PoolSamplerConfig,
    RandomSamplerConfig,
    SamplerConfig,
    generator,
)
from perception.studio.scene_checks import PLAIN_USE, SceneReport, SceneUse, check_scene
from perception.studio.settings import OlderSettings


@dataclass
class RayDataManagerConfig(OlderSettings, VanillaDataManagerConfig):
    """Data of a ray-based method. Images are kept as uint8; drawn pixels are put on the background."""

    _target: type = field(default_factory=lambda: RayDataManager)
    train_num_rays_per_batch: int = 8192
    """Rays per training step."""
    eval_num_rays_per_batch: int = 8192
    """Rays of an evaluation batch."""
    allow_opaque: bool = False
    """Accept images without alpha in Blender layout, as they are."""
    background: Literal["white", "black"] = "white"
    """What transparent pixels show where the data parser names no colour."""
    sampler: SamplerConfig = RandomSamplerConfig()  # noqa: RUF009 (frozen)
    """Which pixels a step trains on; a method's stages may choose others."""
    images_in_memory: int | None = None
    """Training images that are held decoded at once; others are read again when they are needed. By default all."""
    scene_use: tyro.conf.Suppress[SceneUse] = PLAIN_USE  # shared, which older runs' settings need
    """What the method asks of the scene; the trainer sets it."""


class BackgroundDataset(InputDataset):
    """Images as float on their background, also where the data parser leaves that open."""

    def __init__(self, dataparser_outputs, scale_factor: float = 1.0, *, background: Tensor):
        super().__init__(dataparser_outputs, scale_factor)
        if self._dataparser_outputs.alpha_color is None:
            self._dataparser_outputs.alpha_color = background

    def get_numpy_image(self, image_idx: int):
        camera = self.cameras[image_idx]
        size = (int(camera.height), int(camera.width))
        return read_image(self.image_filenames[image_idx], size, scaled=self.scale_factor != 1.0)


class RayDataManager(VanillaDataManager):
    """Draws training rays as a function of seed and step alone, so that a resumed run draws what the uninterrupted one
    would.

    A *sampler* says which pixels of the ``pixels`` (an :class:`~perception.studio.images.ImageStore`) a step draws: the
    one of the settings, until a stage of the method puts another to :meth:`use`.
    """

    config: RayDataManagerConfig
    pixels: ImageStore
    sampler: PixelSampler

    def __init__(
        self,
        config: RayDataManagerConfig,
        device: torch.device | str = "cpu",
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        **kwargs,
    ):
        for name in ("train_num_rays_per_batch", "eval_num_rays_per_batch"):
            if (count := getattr(config, name)) < 1:
                raise SceneError(f"--pipeline.datamanager.{name.replace('_', '-')} must be at least 1, not {count}")
        if config.images_in_memory is not None and config.images_in_memory < 1:
            raise SceneError(
                f"--pipeline.datamanager.images-in-memory must be at least 1, not {config.images_in_memory}"
            )
        say_device(device)
        self.seed = torch.initial_seed() % 2**31  # what the run was seeded with
        config.dataparser = self.read_by(config.dataparser)
        super().__init__(config, device, test_mode, world_size, local_rank, **kwargs)

    # Set-up

    @staticmethod
    def read_by(config: DataParserConfig) -> DataParserConfig:
        """A copy of a data parser's settings that makes what reads the scene."""
        return read_by(config)

    @property
    def background(self) -> Tensor:
        """Colour (3,) behind transparent pixels."""
        colour = self.train_dataparser_outputs.alpha_color
        return torch.full((3,), float(self.config.background == "white")) if colour is None else colour.float().cpu()

    def create_train_dataset(self) -> InputDataset:
        """The training images and cameras, after a look at the whole scene.

        Raises:
            SceneError: something is wrong with it; the sentence names all of that.
        """
        self.report = self._check()
        return self._dataset(self.train_dataparser_outputs)

    def _check(self) -> SceneReport:
        report = check_scene(
            self.dataparser,
            ("train", self.test_split),
            self.config.scene_use,
            background=self.background,
            allow_opaque=self.config.allow_opaque,
            read_images=self.test_mode != "inference",
        )
        report.findings.raise_errors()
        if self.test_mode == "val":
            report.say()
        return report

    @property
    def depth_range(self) -> DepthRange:
        """Near and far of the scene, along the viewing axis."""
        return self.report.depth_range

    def _dataset(self, outputs) -> BackgroundDataset:
        return BackgroundDataset(outputs, self.config.camera_res_scale_factor, background=self.background)

    def create_eval_dataset(self) -> InputDataset:
        """The images and cameras that are evaluated."""
        return self.split_dataset(self.test_split)

    def split_dataset(self, split: str) -> InputDataset:
        """Images and cameras of any split of the scene."""
        return self._dataset(self.dataparser.get_dataparser_outputs(split=split))

    def setup_train(self) -> None:
        """The training images, all read unless only some are to be held, and their sampler."""
        need_alpha = isinstance(self.config.dataparser, BlenderDataParserConfig) and not self.config.allow_opaque
        self.pixels = self.make_store(self.train_dataset, need_alpha=need_alpha)
        self.train_ray_generator = RayGenerator(self.ray_cameras(self.train_dataset).to(self.device))
        self.train_pixel_sampler = BatchSize(self.config.train_num_rays_per_batch)
        # nerfstudio's exporters want rays through all of the scene, whatever the method was trained on.
        self.use(self.config.sampler if self.test_mode == "val" else RandomSamplerConfig())

    def ray_cameras(self, dataset: InputDataset) -> Cameras:
        """The cameras through whose pixels rays go; a data manager of several resolutions chooses one."""
        return dataset.cameras

    def ray_image(self, dataset: InputDataset, view: int) -> Tensor:
        """The colours (H, W, 3) that these rays should show."""
        return dataset[view]["image"]

    def make_store(self, dataset: InputDataset, *, need_alpha: bool) -> ImageStore:
        """The pixels of a data set, held as the settings say."""
        held = self.config.images_in_memory
        if held is None:
            return PixelStore(dataset, need_alpha=need_alpha)
        return LazyPixelStore(dataset, need_alpha=need_alpha, keep=held)

    def setup_eval(self) -> None:
        """Loaders of whole images, which are read when they are needed."""
        self.eval_ray_generator = RayGenerator(self.ray_cameras(self.eval_dataset).to(self.device))
        self.fixed_indices_eval_dataloader = FixedIndicesEvalDataloader(self.eval_dataset, device=self.device)
        self.eval_dataloader = PathEvalDataloader(self.eval_dataset, device=self.device)

    def get_train_rays_per_batch(self) -> int:
        """Rays per training step."""
        return self.sampler.num_rays(self.train_pixel_sampler.num_rays_per_batch)

    # Which pixels

    def use(self, sampler: SamplerConfig, *, start: int = 0, pixels: Tensor | None = None) -> None:
        """Draw by another sampler from now on.

        Args:
            sampler: its settings.
            start: the step at which it is put to use, in a resumed run the one at which it first was.
            pixels: indices (P,) of those that it may draw; by default all that masks and hidden views leave.

        Raises:
            SceneError: there is nothing to draw.
        """
        self.sampler = sampler.setup(self.pixels, seed=self.seed, start=start, pixels=pixels)

    def use_random(self) -> None:
        """Draw from all pixels, with replacement."""
        self.use(RandomSamplerConfig())

    def use_pool(self, indices: Tensor, start_step: int) -> None:
        """Draw from the pixels ``indices`` (P,), each once per epoch, beginning at step ``start_step``.

        Raises:
            SceneError: the pool is empty.
        """
        self.use(PoolSamplerConfig(), start=start_step, pixels=indices)

    @property
    def pool_start(self) -> int | None:
        """The step at which the present pool was put to use, if there is one."""
        return self.sampler.start if isinstance(self.sampler, PoolSampler) else None

    def set_num_rays(self, count: int) -> None:
        """Draw another number of rays from now on. It is not in checkpoints: a model whose number changes keeps it."""
        self.train_pixel_sampler.num_rays_per_batch = count

    def draw(self, step: int) -> Tensor:
        """The pixel indices (N,) of a training step."""
        return self.sampler.draw(step, self.train_pixel_sampler.num_rays_per_batch)

    # Rays

    def next_train(self, step: int) -> tuple[RayBundle, dict]:
        """Rays (N) of a training step, and ``image`` (N, 3) float, ``indices`` (N, 3) of camera, row, column.

        Where the sampler draws one rectangle, ``tile`` is that :class:`~perception.studio.images.ViewTile`, whose
        pixels come row by row, and ``mask`` (N,) tells which of them no mask excludes, if the scene has masks.

        After training (``test_mode`` is not ``"val"``) every call draws others, through any place of their pixels:
        nerfstudio's exporters ask for the rays of step 0 until they have as many points as they want.
        """
        self.train_count += 1
        training = self.test_mode == "val"
        number = step if training else self.train_count
        drawn, tile = self.draw(number), self.sampler.tile(number)
        indices = self.pixels.positions(drawn)
        batch: dict[str, Any] = {"image": self.pixels.colours(drawn, self.background), "indices": indices}
        if tile is not None:
            batch["tile"] = tile
            if (unmasked := self.pixels.unmasked(drawn)) is not None:
                batch["mask"] = unmasked
        if training:
            return self.train_ray_generator(indices.to(self.device)), batch
        places = torch.rand(len(indices), 2, generator=generator(self.seed, self.train_count, 1))
        return rays_within_pixels(self.train_ray_generator.cameras, indices.to(self.device), places), batch

    def next_eval(self, step: int) -> tuple[RayBundle, dict]:
        """Rays of one evaluation image, drawn at random."""
        self.eval_count += 1
        random = generator(self.seed, step, 1)
        number = int(torch.randint(len(self.eval_dataset), (1,), generator=random))
        image = self.ray_image(self.eval_dataset, number)
        height, width = image.shape[:2]
        place = torch.randint(height * width, (self.config.eval_num_rays_per_batch,), generator=random)
        indices = torch.stack([torch.full_like(place, number), place // width, place % width], -1)
        batch = {"image": image[indices[:, 1], indices[:, 2]], "indices": indices}
        return self.eval_ray_generator(indices.to(self.device)), batch

    def training_views(self, chunk: int = 8192, stride: int = 1) -> TrainingViews:
        """All training rays of the shown views, view by view, in chunks; only every ``stride``-th row and column."""
        return TrainingViews(self, chunk, stride)


@dataclass
class TrainingViews:
    """Gives ``(view, rays_o, rays_d, viewdirs)``, tensors (N, 3) on the manager's device, as often as it is walked.

    ``rays_d`` has length 1 along the viewing axis, ``viewdirs`` has length 1.
    """

    manager: RayDataManager
    chunk: int
    stride: int

    def __iter__(self) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        pixels, generator = self.manager.pixels, self.manager.train_ray_generator
        for view in pixels.views.tolist():
            for indices in pixels.image_positions(view, self.stride).split(self.chunk):
                yield (view, *unnormalised(generator(indices.to(self.manager.device))))

    @property
    def num_rays(self) -> int:
        """How many rays there are."""
        pixels = self.manager.pixels
        sizes = (pixels.sizes[view] for view in pixels.views.tolist())
        return sum(-(-height // self.stride) * -(-width // self.stride) for height, width in sizes)


def unnormalised(rays: RayBundle) -> tuple[Tensor, Tensor, Tensor]:
    """``rays_o``, ``rays_d`` and ``viewdirs`` (..., 3) of a bundle; nerfstudio's directions have length 1.

    ``rays_d`` has the length the camera gave it: 1 along the viewing axis, so that near and far are depths.
    """
    length = rays.metadata.get("directions_norm") if rays.metadata else None
    rays_d = rays.directions if length is None else rays.directions * length
    # Some data parsers give focal lengths, and with them rays, in double precision.
    return rays.origins.float(), rays_d.float(), rays.directions.float()


def ray_range(rays: RayBundle, near: float) -> dict[str, Any]:
    """Where the samples of rays (N) may lie, as arguments of DirectVoxGO: beyond ``near``, unless the rays say."""
    if rays.nears is None or rays.fars is None:
        return {"near": near}
    return {"near": 0.0, "bounds": (rays.nears[:, 0].float(), rays.fars[:, 0].float())}
