"""Which pixels a training step draws: settings of samplers, and the samplers that they make.

All draws are a function of the run's seed and the step (and of how many rays are asked for), so that a resumed run
draws what an uninterrupted one would. Settings are frozen, so that methods and runs of earlier versions share them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from perception.radiance.tiles import Tile, tile_grid
from perception.studio.errors import SceneError
from perception.studio.images import ImageStore, ViewTile

NO_PIXELS = "no training ray hits anything: check the poses, the focal length and near/far"


class PixelSampler(ABC):
    """Draws pixels by step.

    Args:
        seed: of the run.
        start: the step at which this sampler is put to use.
    """

    def __init__(self, seed: int, start: int = 0):
        self.seed, self.start = seed, start

    @abstractmethod
    def draw(self, step: int, rays: int) -> Tensor:
        """The pixel indices (N,) of a training step, ``rays`` of them unless the sampler knows how many."""

    def tile(self, step: int) -> ViewTile | None:
        """The one rectangle that a step draws, row by row, if it is one."""
        return None

    def num_rays(self, rays: int) -> int:
        """About how many pixels a step draws where ``rays`` are asked for."""
        return rays


@dataclass(frozen=True)
class SamplerConfig(ABC):
    """Settings of a :class:`PixelSampler`."""

    @abstractmethod
    def setup(self, images: ImageStore, *, seed: int, start: int = 0, pixels: Tensor | None = None) -> PixelSampler:
        """The sampler.

        Args:
            images: whose pixels are drawn.
            seed: of the run.
            start: the step at which it is put to use.
            pixels: indices (P,) of those that may be drawn; by default all that masks and hidden views leave, now and
                later.

        Raises:
            SceneError: there is nothing to draw.
        """


@dataclass(frozen=True)
class RandomSamplerConfig(SamplerConfig):
    """Any pixels, with replacement."""

    def setup(self, images: ImageStore, *, seed: int, start: int = 0, pixels: Tensor | None = None) -> RandomSampler:
        return RandomSampler(images, seed, start, pixels)


class RandomSampler(PixelSampler):
    """See :class:`RandomSamplerConfig`."""

    def __init__(self, images: ImageStore, seed: int, start: int = 0, pixels: Tensor | None = None):
        super().__init__(seed, start)
        self._images, self._pixels = images, _checked(pixels)

    def draw(self, step: int, rays: int) -> Tensor:
        pixels = self._images.usable if self._pixels is None else self._pixels
        return pixels[torch.randint(len(pixels), (rays,), generator=generator(self.seed, step))]


@dataclass(frozen=True)
class PoolSamplerConfig(SamplerConfig):
    """Each pixel once per epoch, in an order that is new in every epoch; a step's number of rays must stay."""

    def setup(self, images: ImageStore, *, seed: int, start: int = 0, pixels: Tensor | None = None) -> PoolSampler:
        return PoolSampler(images.usable if pixels is None else pixels, seed, start)


class PoolSampler(PixelSampler):
    """See :class:`PoolSamplerConfig`.

    Args:
        pool: (P,) pixel indices.
        seed, start: see :class:`PixelSampler`.
    """

    def __init__(self, pool: Tensor, seed: int, start: int = 0):
        super().__init__(seed, start)
        self.pool = _checked(pool)
        self._order: tuple[int, Tensor] | None = None

    def draw(self, step: int, rays: int) -> Tensor:
        place = (step - self.start) * rays + torch.arange(rays)
        epoch, place = place // len(self.pool), place % len(self.pool)
        chosen = [self.pool[self._epoch_order(int(number))[place[epoch == number]]] for number in epoch.unique()]
        return torch.cat(chosen)

    def _epoch_order(self, epoch: int) -> Tensor:
        if self._order is None or self._order[0] != epoch:
            # int32 halves the memory: pools of published scenes have some 60 million pixels.
            order = torch.randperm(len(self.pool), generator=generator(self.seed, epoch, 1), dtype=torch.int32)
            self._order = (epoch, order)
        return self._order[1]


@dataclass(frozen=True)
class PatchSamplerConfig(SamplerConfig):
    """One tile of one image per step: each tile of a fixed grid once per epoch, in a new order (4K-NeRF).

    The paper's `patch_mimg`, and with `min_pixels` and the pixels whose rays hit something its `patch_inmask`.
    """

    side: int = 64
    """Pixels per side of a tile; the last ones on the right and below are smaller where it does not divide an image."""
    min_pixels: int = 0
    """Tiles in which no more than this many pixels may be drawn are left out."""

    def setup(self, images: ImageStore, *, seed: int, start: int = 0, pixels: Tensor | None = None) -> PatchSampler:
        if self.side < 1 or self.min_pixels < 0:
            raise SceneError(f"patches of side {self.side} with more than {self.min_pixels} pixels cannot be drawn")
        return PatchSampler(images, self, seed, start, pixels)


class PatchSampler(PixelSampler):
    """See :class:`PatchSamplerConfig`. ``tiles`` are all that are drawn, image by image in the grid's order."""

    def __init__(
        self, images: ImageStore, config: PatchSamplerConfig, seed: int, start: int = 0, pixels: Tensor | None = None
    ):
        super().__init__(seed, start)
        self._images, self.side = images, config.side
        drawable = torch.zeros(images.num_pixels, dtype=torch.bool)
        drawable[(images.usable if pixels is None else _checked(pixels)).long()] = True
        self.tiles = [
            place
            for view in images.views.tolist()
            for place in (ViewTile(view, tile) for tile in tile_grid(*images.sizes[view], config.side))
            if int(_cut(drawable, images, place).sum()) > config.min_pixels
        ]
        if not self.tiles:
            raise SceneError(f"no tile of {config.side} pixels per side has more than {config.min_pixels} to draw")
        self._order: tuple[int, Tensor] | None = None

    def tile(self, step: int) -> ViewTile:
        epoch, place = divmod(step - self.start, len(self.tiles))
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, torch.randperm(len(self.tiles), generator=generator(self.seed, epoch, 1)))
        return self.tiles[int(self._order[1][place])]

    def draw(self, step: int, rays: int) -> Tensor:
        """The pixels of the tile, row by row; ``rays`` does not matter."""
        return self._images.tile_pixels(self.tile(step))

    def num_rays(self, rays: int) -> int:
        return self.side**2


@dataclass(frozen=True)
class ViewsSamplerConfig(SamplerConfig):
    """Some of the training views alone."""

    views: tuple[int, ...] = (0,)
    """Numbers of training views, from 0."""
    inner: SamplerConfig = RandomSamplerConfig()
    """What is drawn from them."""

    def setup(self, images: ImageStore, *, seed: int, start: int = 0, pixels: Tensor | None = None) -> PixelSampler:
        wrong = [view for view in self.views if not 0 <= view < len(images.sizes)]
        if wrong or not self.views:
            raise SceneError(f"training views are numbered from 0 to {len(images.sizes) - 1}, not {list(self.views)}")
        own = images.pixels_of(torch.tensor(sorted(set(self.views))))
        if pixels is not None:
            own = own[torch.isin(own, pixels)]
        return self.inner.setup(images, seed=seed, start=start, pixels=own)


def generator(seed: int, number: int, stream: int = 0) -> torch.Generator:
    """Random numbers of a run that belong to a step or an epoch; streams are independent of each other."""
    return torch.Generator().manual_seed((seed * 2 + stream) * 2**24 + number)


def _checked(pixels: Tensor | None) -> Tensor | None:
    if pixels is None:
        return None
    if not len(pixels):
        raise SceneError(NO_PIXELS)
    return pixels.cpu()


def _cut(table: Tensor, images: ImageStore, place: ViewTile) -> Tensor:
    """A rectangle (h, w) of what is known of every pixel (P,)."""
    tile: Tile = place.tile
    image = table[images.first[place.view] : images.first[place.view + 1]].view(images.sizes[place.view])
    return image[tile.row : tile.row + tile.height, tile.column : tile.column + tile.width]
