"""Cut images with instance masks in COCO's format, such as iSAID, into overlapping patches."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import _environment  # noqa: F401

from tqdm import tqdm

from perception.datasets.coco_patches import PatchParams, split_coco
from perception.engine.making import fail, image_progress, run_maker
from perception.inference.images.raster import open_windows

PROGRAM = "split_coco"
EPILOG = """examples:
  iSAID as CATNet's recipes expect it, in patches of at most 512 pixels that overlap by 128:
    python tools/dataset_converters/split_coco.py iSAID_train.json train/images --out data/isaid/train \\
        --name instancesonly_filtered_train.json
  the grid of iSAID's own tools and of its server:
    python tools/dataset_converters/split_coco.py iSAID_val.json val/images --out data/isaid_800/val --size 800 \\
        --overlap 200 --name instancesonly_filtered_val.json
  images without annotations; the categories are those of another file:
    python tools/dataset_converters/split_coco.py iSAID_val.json test/images --no-labels --out data/isaid/test \\
        --name instancesonly_filtered_test.json

The result has images/*.png and the annotation file; an interrupted run leaves nothing half-done, and a complete result
is left as it is. Polygons and run lengths of any kind are read, run lengths are written. Images may be of any kind that
tools/infer.py reads. Images that cannot be read and objects without a mask are named and left out, and the exit status
is 1 then."""


def main() -> None:
    args = parse_args()
    run_maker(PROGRAM, args.out, lambda: run(args))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = PatchParams()
    parser.add_argument("annotations", type=Path, metavar="ANNOTATIONS.json", help="in COCO's format")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="the folder that names of images are relative to")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to make")
    parser.add_argument("--name", default="annotations.json", help="of the annotation file (annotations.json)")
    parser.add_argument("--no-labels", action="store_true", help="cut all of IMAGES, and take only the categories")
    parser.add_argument("--size", type=int, default=default.size, help="longest side of a patch (512)")
    parser.add_argument("--overlap", type=int, default=default.overlap, help="what neighbours share (128)")
    parser.add_argument(
        "--object-share", type=float, default=default.object_share, help="of an object that a patch has to exceed (0)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="threads that write (default: all cores)")
    parser.add_argument("--overwrite", action="store_true", help="replace a result of other files or options")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    if args.workers < 1:
        raise ValueError(f"--workers must be at least 1, not {args.workers}")
    if Path(args.name).name != args.name or not args.name.endswith(".json"):
        raise ValueError(f"--name must be the name of a .json file, not {args.name!r}")
    with image_progress() as show:
        summary = split_coco(
            args.annotations,
            args.images,
            args.out,
            PatchParams(args.size, args.overlap, args.object_share, labelled=not args.no_labels),
            name=args.name,
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
    problems = {"unreadable": "images could not be read", "skipped": "objects have no mask"}
    said = [f"{counts[key]} {what} and are left out" for key, what in problems.items() if counts[key]]
    if said:
        fail(PROGRAM, "; ".join(said))


if __name__ == "__main__":
    main()
