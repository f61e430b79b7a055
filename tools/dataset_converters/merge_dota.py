"""Merge detections of DOTA's patches, written as Task1_CLASS.txt files, into those of whole images."""

from __future__ import annotations

import argparse
from pathlib import Path

import _environment  # noqa: F401

from perception.engine.making import fail

EPILOG = """example:
  python tools/dataset_converters/merge_dota.py work_dirs/patch_results --out work_dirs/submission

Patches are named IMAGE__SIZE__X___Y, as split_dota.py names them. A line is IMAGE SCORE X1 Y1 ... X4 Y4. The result is
what DOTA's server wants: the files and a zip archive of them."""


def main() -> None:
    args = parse_args()
    from perception.evaluation.task1 import merge_files

    try:
        before, after = merge_files(args.folder, args.out, args.iou_thr)
    except (OSError, ValueError) as error:
        fail("merge_dota", str(error))
    print(f"wrote {args.out}: {after} of {before} detections")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="holds Task1_CLASS.txt files of patches")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to, another one")
    parser.add_argument(
        "--iou-thr", type=float, default=0.1, help="overlap beyond which detections of a class are one object (0.1)"
    )
    args = parser.parse_args()
    if args.out.resolve() == args.folder.resolve():
        parser.error("--out must be another folder: the detections of patches would be replaced")
    if not 0 <= args.iou_thr <= 1:
        parser.error(f"--iou-thr must be between 0 and 1, not {args.iou_thr}")
    return args


if __name__ == "__main__":
    main()
