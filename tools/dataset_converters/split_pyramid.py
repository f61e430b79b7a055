"""Cut large images in DOTA's format (GLH-Bridge) and their reduced versions into patches, as HBD-Net wants them."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import _environment  # noqa: F401

from tqdm import tqdm

from perception.datasets.dota_split import find_sources, labels_without_image
from perception.datasets.folders import listed
from perception.engine.making import fail, image_progress, run_maker
from perception.inference.images.raster import open_windows
from projects.hbd_net.split import RESAMPLING, PyramidParams, split

PROGRAM = "split_pyramid"
EPILOG = """examples:
  for training, with what is around patches that show long objects:
    python tools/dataset_converters/split_pyramid.py data/glh_bridge/train --out data/glh_bridge_patches/train
  for testing: all levels of each image; labels are those of the whole images
    python tools/dataset_converters/split_pyramid.py data/glh_bridge/val --out data/glh_bridge_patches/val --levels all

Each folder holds images/ and labelTxt/. The result has native/, down2/, down4/, ... with images/ and annfiles/, and
native/contexts/. Nothing is visible under its name before it is complete; a run that was interrupted goes on where it
was, and a complete result is left as it is. Images may be of any kind that tools/infer.py reads and of any size: their
native pixels are read in parts. Images that cannot be read are named and left out, label files without image are named,
and the exit status is 1 then."""


def main() -> None:
    args = parse_args()
    run_maker(PROGRAM, args.out, lambda: run(args), interrupted="the same command goes on where it was")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = PyramidParams()
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="holds images/ and labelTxt/")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument("--labels", default="labelTxt", help="name of the label folder (default: labelTxt)")
    labels.add_argument("--no-labels", action="store_const", dest="labels", const=None, help="there are no labels")
    parser.add_argument(
        "--levels",
        choices=["filled", "all"],
        default=default.levels,
        help="those that fill a window, down to 1/16 (filled, for training), or all until an image fits into one",
    )
    parser.add_argument("--size", type=int, default=default.size, help="side of the windows (1024)")
    parser.add_argument("--gap", type=int, default=default.gap, help="overlap of neighbours (200)")
    parser.add_argument(
        "--image-share", type=float, default=default.image_share, help="of a window that has to be image (0.6)"
    )
    parser.add_argument(
        "--object-share", type=float, default=default.object_share, help="of an object inside its window (0.3)"
    )
    parser.add_argument(
        "--context-threshold",
        type=float,
        default=default.context_threshold,
        metavar="PIXELS",
        help="native patches with so long an object get crops of what is around them (300); 0: all patches",
    )
    parser.add_argument(
        "--resampling", choices=list(RESAMPLING), default=default.resampling, help="of reduced images (area)"
    )
    parser.add_argument(
        "--pad", nargs=3, type=int, default=default.pad, metavar=("R", "G", "B"), help="colour (124 116 104)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="threads that write (default: all cores)")
    parser.add_argument("--overwrite", action="store_true", help="replace a result of other files or options")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    params = PyramidParams(
        size=args.size,
        gap=args.gap,
        levels=args.levels,
        image_share=args.image_share,
        object_share=args.object_share,
        context_threshold=args.context_threshold,
        pad=tuple(args.pad),
        resampling=args.resampling,
    )
    if args.workers < 1:
        raise ValueError(f"--workers must be at least 1, not {args.workers}")
    sources = find_sources(args.folders, args.labels)
    orphans = [] if args.labels is None else labels_without_image(args.folders, args.labels, sources)
    with image_progress() as show:
        summary = split(
            sources,
            args.out,
            params,
            open_image=open_windows,
            overwrite=args.overwrite,
            workers=args.workers,
            on_progress=show,
            on_problem=lambda text: tqdm.write(f"{PROGRAM}: {text}", file=sys.stderr),
        )
    state = "made" if summary.created else "already complete, left as it is:"
    print(f"{state} {summary.out} ({summary.counts['all']['images']} images)")
    for level, counts in summary.counts.items():
        if level != "all":
            around = f", {counts['contexts']} of them with context" if counts["contexts"] else ""
            objects = f"{counts['objects']} objects in {counts['patches']} patches"
            print(f"  {level}: {counts['images']} images, {objects}{around}")
    problems = []
    if summary.counts["all"]["unreadable"]:
        problems.append(f"{summary.counts['all']['unreadable']} images could not be read and are left out")
    if orphans:
        problems.append(f"{len(orphans)} label files have no image: {listed(orphans)}")
    if problems:
        fail(PROGRAM, "; ".join(problems))


if __name__ == "__main__":
    main()
