"""Cut the images and labels of DOTA, or of a data set in its format, into square patches."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import _environment  # noqa: F401

from tqdm import tqdm

from perception.datasets.dota_split import SplitParams, find_sources, labels_without_image, split
from perception.datasets.folders import listed
from perception.engine.making import fail, image_progress, run_maker
from perception.inference.images.raster import open_windows

PROGRAM = "split_dota"
EPILOG = """examples:
  one scale, training and validation images together:
    python tools/dataset_converters/split_dota.py data/dota/train data/dota/val --out data/split_ss_dota/trainval
  images without labels:
    python tools/dataset_converters/split_dota.py data/dota/test --no-labels --out data/split_ss_dota/test
  three scales:
    python tools/dataset_converters/split_dota.py data/dota/train data/dota/val --out data/split_ms_dota/trainval \\
        --gaps 500 --rates 0.5 1.0 1.5

Each folder holds images/ and labelTxt/. The result has images/ and annfiles/; an interrupted run leaves nothing
half-done, and a complete result is left as it is. Images may be of any kind that tools/infer.py reads, and labels are
those of the upright image. Images that cannot be read are named and left out, label files without image are named, and
the exit status is 1 then."""


def main() -> None:
    args = parse_args()
    run_maker(PROGRAM, args.out, lambda: run(args))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = SplitParams()
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="holds images/ and labelTxt/")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument("--labels", default="labelTxt", help="name of the label folder (default: labelTxt)")
    labels.add_argument("--no-labels", action="store_const", dest="labels", const=None, help="there are no labels")
    parser.add_argument("--sizes", nargs="+", type=int, default=default.sizes, help="sides of the windows (1024)")
    parser.add_argument("--gaps", nargs="+", type=int, default=default.gaps, help="overlaps of neighbours (200)")
    parser.add_argument("--rates", nargs="+", type=float, default=default.rates, help="divide sizes and gaps (1.0)")
    parser.add_argument(
        "--image-share", type=float, default=default.image_share, help="of a window that has to be image (0.6)"
    )
    parser.add_argument(
        "--object-share", type=float, default=default.object_share, help="of an object inside its window (0.7)"
    )
    parser.add_argument(
        "--pad", nargs=3, type=int, default=default.pad, metavar=("R", "G", "B"), help="colour (124 116 104)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="threads that write (default: all cores)")
    parser.add_argument("--overwrite", action="store_true", help="replace a result of other files or options")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    params = SplitParams(
        sizes=tuple(args.sizes),
        gaps=tuple(args.gaps),
        rates=tuple(args.rates),
        image_share=args.image_share,
        object_share=args.object_share,
        pad=tuple(args.pad),
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
    counts = summary.counts["patches"]
    contents = ", ".join(f"{counts[what]} {what}" for what in ("images", "patches", "objects"))
    state = "made" if summary.created else "already complete, left as it is:"
    print(f"{state} {summary.out} ({contents})")
    problems = []
    if counts["unreadable"]:
        problems.append(f"{counts['unreadable']} images could not be read and are left out")
    if orphans:
        problems.append(f"{len(orphans)} label files have no image: {listed(orphans)}")
    if problems:
        fail(PROGRAM, "; ".join(problems))


if __name__ == "__main__":
    main()
