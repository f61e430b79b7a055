"""Folders of panoramas, each of which is looked for in a gallery of tiles."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS

from perception.engine.checkpoint import load_checkpoint_file, load_weights
from perception.engine.errors import UserError
from perception.inference.arguments import positive
from perception.inference.kinds import KINDS, Kind, Running
from perception.inference.retrieval.bank import Bank, update
from perception.inference.retrieval.bank import Encode as EncodeBatches
from perception.inference.retrieval.encoding import encode_gallery, shown
from perception.inference.retrieval.gallery import SOURCES, Gallery, read_gallery
from perception.inference.retrieval.gallery_worker import Encode, GalleryRun
from perception.inference.retrieval.match_writer import NUMBERS, PICTURES, POINTS, TABLE, MatchWriter
from perception.inference.retrieval.places import NAMINGS, Place, Scale, places_of_names, places_of_table
from perception.inference.retrieval.query_reader import PanoramaReader
from perception.inference.retrieval.ranking import Ranker, Reorder
from perception.inference.retrieval.searching import INDEXES, exact, hnsw
from perception.inference.retrieval.showing import MatchesShowing
from perception.inference.settings import run_settings
from perception.inference.writing import Summary

if TYPE_CHECKING:
    from perception.inference.engines.engine import Recipe
    from perception.inference.kinds import Spread

SHOWN = 5
"""Tiles of a picture."""


@KINDS.register_module()
class Panoramas(Kind):
    """Panoramas against a gallery.

    Args:
        ground_size: (height, width) of the model's panoramas.
        tile_side: of its tiles.
        gallery: folder of tiles.
        bank: folder of their descriptors, filled or updated; by default a folder beside the gallery.
        where: what says where tiles are, one of `SOURCES`.
        places: a table that says it instead.
        scale: how large tiles are.
        query_places: where queries are, to compare with: a naming, or a table.
        top: matches of each query that are reported.
        rerank: how many of the best tiles are compared with the query itself; by default as many as the model says.
        superglobal: order the best hundred by SuperGlobal before.
        index: how the bank is searched, one of `INDEXES`.
        bank_batch: tiles at a time.

    Raises:
        UserError: no gallery is given.
    """

    unit, units = "query", "queries"
    outputs = """\
  results.csv         the best tile of each query, and the place in it
  results.geojson     the places as points, where the tiles' own places and sizes are known
  images/             pictures: the query, its best tiles, the heat map on the first
  summary.json        counts, tiles that cannot be used; distances to the queries' own places, if they are known"""

    def __init__(
        self,
        ground_size: Sequence[int] = (384, 768),
        tile_side: int = 384,
        gallery: Path | None = None,
        bank: Path | None = None,
        where: str = "satellite",
        places: Path | None = None,
        scale: Scale | None = None,
        query_places: str | None = None,
        top: int = 10,
        rerank: int | None = None,
        superglobal: bool = False,
        index: str = "exact",
        bank_batch: int = 32,
    ) -> None:
        if gallery is None:
            raise UserError("this model ranks a gallery of tiles: tools/retrieve.py takes queries and gallery")
        if where not in SOURCES:
            raise UserError(f"--where must be one of {', '.join(SOURCES)}, got {where!r}")
        self._ground_size, self._tile_side = (int(ground_size[0]), int(ground_size[1])), tile_side
        self._folder = gallery
        self._bank = bank or gallery.resolve().with_name(f"{gallery.resolve().name}.bank")
        self._where, self._table, self._scale = where, places, scale or Scale()
        self._query_places, self._top, self._rerank = query_places, top, rerank
        self._superglobal, self._bank_batch = superglobal, bank_batch
        if index not in INDEXES:
            raise UserError(f"--index must be one of {', '.join(INDEXES)}, got {index!r}")
        self._index = index

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        add_retrieval_options(parser)

    @classmethod
    def options(cls, args: argparse.Namespace) -> dict[str, Any]:
        return retrieval_options(args)

    @cached_property
    def _gallery(self) -> Gallery:
        return read_gallery(self._folder, self._bank, self._where, self._table, self._scale)

    def settings(self) -> dict[str, Any]:
        return {
            "gallery": str(self._folder.resolve()),
            "gallery_files": self._gallery.digest(),
            "where": str(self._table) if self._table else self._where,
            "scale": [self._scale.pixel, self._scale.zoom, self._scale.factor, self._scale.original],
            "query_places": self._query_places,
            "top": self._top,
            "rerank": self._rerank,
            "superglobal": self._superglobal,
            "index": self._index,
        }

    def reader(self, predictor: Ranker | None) -> PanoramaReader:
        return PanoramaReader(self._ground_size)

    def predictor(self, cfg: Config, checkpoint: Path, running: Running) -> Ranker:
        gallery = self._gallery
        model, encode = self.encoder(cfg, checkpoint, running.device)
        bank = self._updated(
            cfg,
            checkpoint,
            model.descriptor_size,
            lambda batches: encode_gallery(batches, self._tile_side, running.workers, encode),
        )
        return Ranker(
            model,
            bank,
            exact(bank.vectors) if self._index == "exact" else hnsw(bank.vectors, _say),
            {tile.name: tile.path for tile in gallery.tiles},
            gallery.sized(bank, self._scale, _say),
            self._tile_side,
            running.device,
            self._top,
            model.rerank_topk if self._rerank is None else self._rerank,
            SHOWN if running.pictures else 0,
            _superglobal() if self._superglobal else None,
        )

    def prepare(self, cfg: Config, recipe: Recipe, spread: Spread) -> None:
        """Encodes the gallery, so that predictors find a bank that is complete."""
        make = GalleryRun(recipe, self._tile_side, self._bank_batch)
        self._updated(
            cfg,
            recipe.checkpoint,
            _model(cfg).descriptor_size,
            lambda batches: shown(spread(make, batches), batches),
        )

    def encoder(self, cfg: Config, checkpoint: Path, device: torch.device) -> tuple[Any, Encode]:
        """The model with its weights, and what encodes tiles with it."""
        model = _model(cfg)
        load_weights(model, load_checkpoint_file(checkpoint), checkpoint)
        model = model.to(device).eval()

        @torch.inference_mode()
        def encode(pixels: Any) -> Any:
            return model.encode_tiles(torch.from_numpy(pixels).to(device)).cpu().numpy()

        return model, encode

    def _updated(self, cfg: Config, checkpoint: Path, channels: int, encode: EncodeBatches) -> Bank:
        settings = run_settings(cfg.filename, cfg, checkpoint, self._folder, (), self)
        identity = {
            "checkpoint": settings["checkpoint_sha256"],
            "config": settings["config_sha256"],
            "tile size": str(self._tile_side),
        }
        bank = update(self._bank, identity, channels, self._gallery.tiles, encode, self._bank_batch, _say)
        if not bank.entries:
            name, reason = next(iter(bank.unusable.items()))
            raise UserError(f"no tile of the gallery {self._folder} can be used, for instance {name}: {reason}")
        if bank.unusable:
            _say(f"gallery: {len(bank.unusable)} tiles cannot be used, see {NUMBERS}")
        return bank

    def meta(self, cfg: Config, checkpoint: Path, predictor: Ranker | None) -> dict[str, Any]:
        bank = Bank(self._bank)
        return {"unusable": dict(sorted({**self._gallery.skipped, **bank.unusable}.items()))}

    def writers(self, names: Sequence[str], pictures: bool) -> Sequence[Summary]:
        return [MatchWriter(names, pictures, self._truths(names))]

    def showing(self) -> MatchesShowing:
        return MatchesShowing()

    def places(self, pictures: bool) -> dict[str, str]:
        shown = {"table": TABLE, "points": POINTS, "summary": NUMBERS}
        return {**shown, "pictures": PICTURES} if pictures else shown

    def _truths(self, names: Sequence[str]) -> dict[str, Place]:
        if self._query_places is None:
            return {}
        if self._query_places in NAMINGS:
            return places_of_names(names, self._query_places)
        return places_of_table(Path(self._query_places), names)


def add_retrieval_options(parser: argparse.ArgumentParser) -> None:
    """Options of tools/retrieve.py beyond those of every folder run."""
    parser.add_argument("--gallery", type=Path, required=True, help="folder of square tiles, searched recursively")
    parser.add_argument("--bank", type=Path, help="folder of the tiles' descriptors (default: GALLERY.bank beside it)")
    parser.add_argument(
        "--where",
        choices=SOURCES,
        default="satellite",
        help="what says where the middle of a tile is: its name (satellite_LAT_LON.png, two decimal numbers, Z/X/Y of "
        "web maps with rows from the north, xyz, or from the south, tms), the GeoTIFF itself, or nothing "
        "(default: satellite)",
    )
    parser.add_argument("--places", type=Path, metavar="CSV", help="table with file, lat, lon (and metres_per_side)")
    parser.add_argument("--metres-per-pixel", type=float, help="of the tiles' files")
    parser.add_argument("--zoom", type=float, help="web map zoom of the tiles; VIGOR's is 20")
    parser.add_argument("--tile-scale", type=float, default=1.0, help="2 for tiles of doubled resolution (default: 1)")
    parser.add_argument("--original-size", type=positive, help="pixels a side before tiles were resized, for --zoom")
    parser.add_argument(
        "--query-places",
        metavar="NAMING|CSV",
        help="where queries are, to measure distances: comma (PREFIX,LAT,LON,.jpg), another naming, or a table",
    )
    parser.add_argument("--top", type=positive, default=10, help="tiles that are reported (default: 10)")
    parser.add_argument("--rerank", type=int, help="best tiles that are ordered anew (default: the model's, 5)")
    parser.add_argument(
        "--index", choices=INDEXES, default="exact", help="hnsw: an approximate index of faiss (default: exact)"
    )
    parser.add_argument("--superglobal", action="store_true", help="order the best hundred by SuperGlobal before that")


def retrieval_options(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of :class:`Panoramas` from those options.

    Raises:
        UserError: they contradict each other, or a number is out of its range.
    """
    if args.metres_per_pixel is not None and args.zoom is not None:
        raise UserError("--metres-per-pixel and --zoom say the same; give one")
    for name in ("metres_per_pixel", "tile_scale"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} must be positive, got {value:g}")
    if args.zoom is not None and not 0 <= args.zoom <= 30:
        raise UserError(f"--zoom must be 0 to 30, got {args.zoom:g}")
    if args.zoom is None and (args.original_size is not None or args.tile_scale != 1.0):
        raise UserError("--original-size and --tile-scale belong to --zoom")
    if args.rerank is not None and args.rerank < 0:
        raise UserError(f"--rerank must not be negative, got {args.rerank}")
    if args.query_places is not None and args.query_places not in NAMINGS and not Path(args.query_places).is_file():
        raise UserError(f"--query-places is neither a file nor one of {', '.join(NAMINGS)}: {args.query_places!r}")
    return dict(
        gallery=args.gallery,
        bank=args.bank,
        where=args.where,
        places=args.places,
        scale=Scale(args.metres_per_pixel, args.zoom, args.tile_scale, args.original_size),
        query_places=args.query_places,
        top=args.top,
        rerank=args.rerank,
        superglobal=args.superglobal,
        index=args.index,
    )


def _model(cfg: Config) -> Any:
    return revert_sync_batchnorm(MODELS.build({**cfg.model, "init_cfg": None}))


def _superglobal() -> Reorder:
    from perception.evaluation.superglobal import rerank

    return rerank


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
