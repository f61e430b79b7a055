"""Options of the command line that images have."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

from perception.engine.errors import UserError
from perception.inference.arguments import fraction, positive
from perception.inference.images.gdal_raster import SampleOptions
from perception.inference.images.tiles import Tiling


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Adds them in groups of their own."""
    group = parser.add_argument_group("images")
    add_score_option(group)
    group.add_argument("--tile", type=positive, metavar="SIZE", help="cut images into tiles of SIZE x SIZE pixels")
    group.add_argument(
        "--overlap",
        type=int,
        metavar="PIXELS",
        help="what neighbouring tiles share; more than the largest object (default: a fifth of SIZE)",
    )
    group.add_argument(
        "--merge-iou",
        type=fraction,
        metavar="IOU",
        help="detections of two tiles that overlap more are one (default: 0.1 for rotated boxes, else 0.5)",
    )
    add_raster_options(parser)


def add_pyramid_options(parser: argparse.ArgumentParser) -> None:
    """Adds those of pyramids of images, in groups of their own."""
    group = parser.add_argument_group("images")
    add_score_option(group)
    group.add_argument(
        "--patch", type=positive, metavar="SIZE", help="side of the windows, on every level (default: 1024)"
    )
    group.add_argument("--gap", type=int, metavar="PIXELS", help="what neighbouring windows share (default: 200)")
    group.add_argument(
        "--levels",
        type=positive,
        metavar="NUMBER",
        help="how many levels at most: 1 is the native image alone (default: until the image fits into a window)",
    )
    group.add_argument(
        "--within-iou",
        type=fraction,
        metavar="IOU",
        help="detections of a level that overlap more are one (default: 0.4)",
    )
    group.add_argument(
        "--across-iou",
        type=fraction,
        metavar="IOU",
        help="detections of different levels that overlap more are one (default: 0.5)",
    )
    group.add_argument(
        "--keep-parts",
        action=argparse.BooleanOptionalAction,
        help="keep what ends where its window does beside the whole object that it lies in, as published (default: no)",
    )
    group.add_argument(
        "--fuse-at-test",
        action=argparse.BooleanOptionalAction,
        help="give each native window what is around it on reduced images, as in training; takes up to three times as "
        "long (default: no)",
    )
    add_raster_options(parser)


def add_score_option(group: argparse._ArgumentGroup) -> None:
    """Adds the threshold of scores."""
    group.add_argument(
        "--score-thr",
        type=fraction,
        metavar="SCORE",
        help="leave out detections with a lower score, from 0 to 1 (default: 0.3)",
    )


def add_raster_options(parser: argparse.ArgumentParser) -> None:
    """Adds what says how samples become pixels."""
    rasters = parser.add_argument_group("rasters", "how samples become pixels, where files do not say it well")
    rasters.add_argument(
        "--range",
        nargs="+",
        type=float,
        metavar="SAMPLE",
        help="samples that are black and white, for all bands or LOW HIGH for each (default: by the file's metadata, "
        "else of 99.8 %% of its samples)",
    )
    rasters.add_argument(
        "--bands",
        nargs="+",
        type=positive,
        metavar="BAND",
        help="the bands that are red, green and blue, from 1, or the one that is grey (default: by their colours)",
    )


def image_options(args: argparse.Namespace) -> dict[str, Any]:
    """Those that were given, as arguments of the kind.

    Raises:
        UserError: they contradict each other.
    """
    given = _given(args, ("score_thr", "merge_iou"))
    if args.tile is None:
        if args.overlap is not None or args.merge_iou is not None:
            raise UserError("--overlap and --merge-iou belong to --tile SIZE, which is not given")
        return given
    if args.tile < 32:
        raise UserError(f"--tile {args.tile} is below 32 pixels")
    try:
        tiling = Tiling(args.tile, args.tile // 5 if args.overlap is None else args.overlap)
    except ValueError as error:
        raise UserError(str(error)) from error
    return {**given, "tiling": tiling}


def pyramid_options(args: argparse.Namespace) -> dict[str, Any]:
    """Those that were given, as arguments of the kind.

    Raises:
        UserError: they contradict each other.
    """
    of_pyramids = ("patch", "gap", "levels", "within_iou", "across_iou", "keep_parts", "fuse_at_test")
    return _given(args, ("score_thr", *of_pyramids))


def _given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Options of these names that were given, and what was given of rasters."""
    given = {key: getattr(args, key) for key in names if getattr(args, key) is not None}
    if args.range is not None or args.bands is not None:
        given["samples"] = _sample_options(args.range, args.bands)
    return given


def _sample_options(limits: Sequence[float] | None, bands: Sequence[int] | None) -> SampleOptions:
    if bands is not None and len(bands) not in (1, 3):
        raise UserError(f"--bands takes one band or three, not {len(bands)}")
    chosen = None if bands is None else tuple(bands)
    if limits is None:
        return SampleOptions(None, chosen)
    if len(limits) not in (2, 6):
        raise UserError(f"--range takes LOW HIGH, or LOW HIGH for each of three bands, not {len(limits)} numbers")
    ranges = tuple(zip(limits[0::2], limits[1::2]))
    for low, high in ranges:
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UserError(f"--range {low:g} {high:g}: the first has to be below the second")
    return SampleOptions(ranges, chosen)
