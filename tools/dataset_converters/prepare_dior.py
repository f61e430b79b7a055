"""Bring DIOR, as it is published, into the layout and the names of classes of CATNet's recipes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import _environment  # noqa: F401

from tqdm import tqdm

from perception.datasets.dior import SPLITS, prepare_dior
from perception.engine.making import fail, image_progress, run_maker

PROGRAM = "prepare_dior"
EPILOG = """example:
  python tools/dataset_converters/prepare_dior.py DIOR --out data/dior

DIOR holds the unpacked archives: Annotations/Horizontal Bounding Boxes/*.xml, ImageSets/Main/{train,val,test}.txt,
JPEGImages-trainval/*.jpg and JPEGImages-test/*.jpg. It stays as it is; images are linked where the file system can.
Objects without width or height are left out and counted. Images that are missing, or whose labels are, are named and
left out, and the exit status is 1 then."""


def main() -> None:
    args = parse_args()
    run_maker(PROGRAM, args.out, lambda: run(args))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="DIOR", help="folder of the unpacked archives")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace a result of another source")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    with image_progress() as show:
        summary = prepare_dior(
            args.source,
            args.out,
            overwrite=args.overwrite,
            on_progress=show,
            on_problem=lambda text: tqdm.write(f"{PROGRAM}: {text}", file=sys.stderr),
        )
    state = "made" if summary.created else "already complete, left as it is:"
    print(f"{state} {summary.out}")
    for split in SPLITS:
        counts = summary.counts[split]
        empty = f"; {counts['empty_boxes']} without width or height left out" if counts["empty_boxes"] else ""
        print(f"  {split}: {counts['images']} images, {counts['objects']} objects{empty}")
    left_out = sum(summary.counts[split]["left_out"] for split in SPLITS)
    if left_out:
        fail(PROGRAM, f"{left_out} images are left out")


if __name__ == "__main__":
    main()
