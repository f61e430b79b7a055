"""Options of the command line that images have."""

from __future__ import annotations

import argparse
from typing import Any

from perception.engine.errors import UserError
from perception.inference.arguments import fraction, positive
from perception.inference.images.tiles import Tiling


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Adds them in a group of their own."""
    group = parser.add_argument_group("images")
    group.add_argument(
        "--score-thr",
        type=fraction,
        metavar="SCORE",
        help="leave out detections with a lower score, from 0 to 1 (default: 0.3)",
    )
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


def image_options(args: argparse.Namespace) -> dict[str, Any]:
    """Those that were given, as arguments of the kind.

    Raises:
        UserError: they contradict each other.
    """
    given = {key: getattr(args, key) for key in ("score_thr", "merge_iou") if getattr(args, key) is not None}
    if args.tile is None:
        if args.overlap is not None or args.merge_iou is not None:
            raise UserError("--overlap and --merge-iou belong to --tile SIZE, which is not given")
        return given
    try:
        tiling = Tiling(args.tile, args.tile // 5 if args.overlap is None else args.overlap)
    except ValueError as error:
        raise UserError(str(error)) from error
    return {**given, "tiling": tiling}
