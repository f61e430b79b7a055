"""Data sets of ground panoramas and satellite tiles for MMEngine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from perception.engine.errors import UserError

from .vigor import METRES_PER_PIXEL, Vigor, read_vigor


class _VigorDataset(BaseDataset):
    """What both data sets share: the lists of one split.

    Args:
        data_root: folder of the data set.
        split, protocol, layout, cities: see :func:`perception.datasets.vigor.read_vigor`.
        metres_per_pixel: of tiles at 640 pixels, by city, for cities that are not VIGOR's.
        pipeline, test_mode: see MMEngine's ``BaseDataset``.
    """

    vigor: Vigor

    def __init__(
        self,
        data_root: str,
        split: str,
        *,
        protocol: str = "same_area",
        layout: str | Mapping[str, str] = "splits_new",
        cities: Sequence[str] | None = None,
        metres_per_pixel: Mapping[str, float] | None = None,
        pipeline: Sequence[Any] = (),
        test_mode: bool = False,
    ):
        self._lists = dict(split=split, protocol=protocol, layout=layout, cities=cities)
        self._metres = {**METRES_PER_PIXEL, **(metres_per_pixel or {})}
        super().__init__(data_root=data_root, pipeline=pipeline, test_mode=test_mode, max_refetch=0)

    def load_data_list(self) -> list[dict]:
        """Reads the lists; one entry for each item."""
        self.vigor = read_vigor(self.data_root, **self._lists)
        unknown = sorted({tile.city for tile in self.vigor.tiles} - self._metres.keys())
        if unknown:
            raise UserError(
                f"metres per pixel of {', '.join(unknown)} are not known: give metres_per_pixel=dict({unknown[0]}=...) "
                "in the data set's config"
            )
        return self._entries()

    def _entries(self) -> list[dict]:
        raise NotImplementedError

    def prepare_data(self, idx: int) -> dict:
        """The item after the pipeline; ``sample_idx`` keeps the seed that a resumable sampler gave."""
        info = self.get_data_info(idx)
        info["sample_idx"] = idx
        return self.pipeline(info)


@DATASETS.register_module()
class VigorPairs(_VigorDataset):
    """Panoramas, each with the tile that holds its camera in the central quarter."""

    def _entries(self) -> list[dict]:
        tiles = self.vigor.tiles
        return [
            dict(
                ground_path=str(pair.panorama),
                satellite_path=str(tiles[pair.tiles[0]].path),
                city=pair.city,
                pair=number,
                tile=pair.tiles[0],
                semi_tiles=pair.tiles[1:],
                offset=tuple(pair.offsets[0]),
                metres_per_pixel=self._metres[pair.city],
            )
            for number, pair in enumerate(self.vigor.pairs)
        ]


@DATASETS.register_module()
class VigorTiles(_VigorDataset):
    """The gallery: all tiles of the split's cities.

    Args:
        data_root, split, options: see :class:`_VigorDataset`.
        own_only: leave out tiles that are no pair's own: nothing is trained on them.
    """

    def __init__(self, data_root: str, split: str, *, own_only: bool = False, **options: Any):
        self.own_only = own_only
        super().__init__(data_root, split, **options)

    def _entries(self) -> list[dict]:
        own = {pair.tiles[0] for pair in self.vigor.pairs}
        return [
            dict(satellite_path=str(tile.path), city=tile.city, tile=number)
            for number, tile in enumerate(self.vigor.tiles)
            if number in own or not self.own_only
        ]
