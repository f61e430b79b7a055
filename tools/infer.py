"""Run a detector or segmenter over a folder of images: predictions as files, and pictures of them."""

# Worker processes import this file once more: whatever is heavy is imported inside the functions.
import argparse
import os
import sys
from pathlib import Path

import _environment  # noqa: F401

from perception.engine.errors import UserError, run_cli

EPILOG = """what OUT holds:
  predictions.json    COCO: images, categories, and annotations with bbox [x, y, w, h] in pixels of the image, and
                      score; rbox [cx, cy, w, h, radians] and corners for rotated boxes, run lengths for masks
  predictions.jsonl   one line for each image, written as the run goes
  images/             the pictures, in the folder tree of FOLDER
  labels/             semantic segmentation: the class of each pixel, as PNG with a palette (255: none)
  panoptic/           panoptic segments, as PNG in COCO's code
  dota/               rotated boxes: Task1_CLASS.txt with "image score x1 y1 ... x4 y4", as for DOTA's server
  geojson/            rotated boxes, and whatever --tile finds, as polygons in pixels; .crs.geojson in the coordinate
                      system of an image that has one
  skipped.json        files that could not be used, with reasons
  run.json            what the run was started with

--tile reads huge images in parts, no more than a few in memory; `pip install rasterio pyvips pyvips-binary`
provides the readers (rasterio for GeoTIFF, pyvips for JPEG and PNG) where `make setup` has not. Pictures of them are
reduced to at most 4096 pixels a side.

An interrupted run continues where it stopped when the same command is started again.
Exit status: 0 all images done, 3 some skipped, 1 nothing could be done, 2 wrong usage.

example:
  python tools/infer.py configs/demo/rank_detr.py work_dirs/demo/rank_detr/iter_950.pth data/demo/shapes/images/val \\
      --out outputs/shapes
  python tools/infer.py configs/arc.py CHECKPOINT scenes --out outputs/scenes --tile 1024 --overlap 200
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file of the model", metavar="CONFIG")
    parser.add_argument("checkpoint", type=Path, help="its weights", metavar="CHECKPOINT")
    parser.add_argument(
        "folder", type=Path, help="folder of images, searched recursively; or one image", metavar="FOLDER"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--batch-size", type=positive, default=4, help="images or tiles at a time in the model (default: 4)"
    )
    parser.add_argument(
        "--workers",
        type=positive,
        default=min(4, os.cpu_count() or 1),
        help="processes that decode, without --tile (default: %(default)s)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    parser.add_argument(
        "--score-thr", type=float, default=0.3, help="leave out detections with a lower score (default: 0.3)"
    )
    parser.add_argument(
        "--pattern", nargs="+", default=[], help="only files whose name or relative path matches, e.g. '*.png' 'cam0/*'"
    )
    parser.add_argument("--tile", type=positive, metavar="SIZE", help="cut images into tiles of SIZE x SIZE pixels")
    parser.add_argument(
        "--overlap",
        type=int,
        metavar="PIXELS",
        help="what neighbouring tiles share; more than the largest object (default: a fifth of SIZE)",
    )
    parser.add_argument(
        "--merge-iou",
        type=fraction,
        metavar="IOU",
        help="detections of two tiles that overlap more are one (default: 0.1 for rotated boxes, else 0.5)",
    )
    parser.add_argument("--no-images", action="store_true", help="write predictions only, draw nothing")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in OUT instead of continuing it")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help="override settings of the config, e.g. model.test_cfg.max_per_img=50",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse_args(arguments)
    # File names may hold bytes that are no text.
    sys.stdout.reconfigure(errors="backslashreplace")
    from perception.inference.folder import Job, run
    from perception.inference.tiles import Tiling

    if args.tile is None and (args.overlap is not None or args.merge_iou is not None):
        raise UserError("--overlap and --merge-iou belong to --tile SIZE, which is not given")
    try:
        tiling = args.tile and Tiling(args.tile, args.tile // 5 if args.overlap is None else args.overlap)
    except ValueError as error:
        raise UserError(str(error)) from error

    job = Job(
        config=args.config,
        checkpoint=args.checkpoint,
        folder=args.folder,
        out=args.out,
        batch_size=args.batch_size,
        workers=args.workers,
        device=args.device,
        score_thr=args.score_thr,
        patterns=args.pattern,
        pictures=not args.no_images,
        overwrite=args.overwrite,
        tiling=tiling,
        merge_iou=args.merge_iou,
        cfg_options=args.cfg_options,
    )
    try:
        summary = run(job)
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    print(summary.text(), flush=True)
    return 3 if summary.skipped else 0


def fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 1")
    return value


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


if __name__ == "__main__":
    run_cli(main)
