"""Cut large images in DOTA's format (GLH-Bridge) and their reduced versions into patches, as HBD-Net wants them."""

from __future__ import annotations

import argparse

import _environment  # noqa: F401
from _splitting import add_folders, add_shares, add_writing, cut, fail_for_what_is_left_out

from perception.engine.making import run_maker
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
    add_folders(parser)
    parser.add_argument(
        "--levels",
        choices=["filled", "all"],
        default=default.levels,
        help="those that fill a window, down to 1/16 (filled, for training), or all until an image fits into one",
    )
    parser.add_argument("--size", type=int, default=default.size, help="side of the windows (1024)")
    parser.add_argument("--gap", type=int, default=default.gap, help="overlap of neighbours (200)")
    add_shares(parser, default.image_share, default.object_share)
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
    add_writing(parser, default.pad)
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
    summary, orphans = cut(PROGRAM, args, split, params)
    state = "made" if summary.created else "already complete, left as it is:"
    print(f"{state} {summary.out} ({summary.counts['all']['images']} images)")
    for level, counts in summary.counts.items():
        if level != "all":
            around = f", {counts['contexts']} of them with context" if counts["contexts"] else ""
            objects = f"{counts['objects']} objects in {counts['patches']} patches"
            print(f"  {level}: {counts['images']} images, {objects}{around}")
    fail_for_what_is_left_out(PROGRAM, summary.counts["all"]["unreadable"], orphans)


if __name__ == "__main__":
    main()
