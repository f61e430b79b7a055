"""Split the annotations of NWPU VHR-10 into those of training and test images, as CATNet was published with."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import _environment  # noqa: F401

from perception.engine.errors import UserError, run_cli

EPILOG = """example:
  python tools/dataset_converters/split_vhr10.py annotations.json --out data/vhr/annotations

The file holds the 650 images with objects in COCO's format, numbered from 0. The result is instances_train.json (487
images) and instances_test.json (163)."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("annotations", type=Path, metavar="FILE", help="annotations of all images")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write to")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from perception.datasets.nwpu_vhr10 import split_annotations
    from perception.engine.atomic import output_folder, replacing

    paths = [args.out / f"instances_{name}.json" for name in ("train", "test")]
    there = [path for path in paths if path.exists()]
    if there and not args.overwrite:
        raise UserError(f"{there[0]} exists; choose another folder or add --overwrite")
    parts = split_annotations(args.annotations)
    output_folder(args.out)
    with replacing(paths[0]) as train, replacing(paths[1]) as test:
        for file, part in zip((train, test), parts):
            file.write(json.dumps(part).encode())
    for path, part in zip(paths, parts):
        print(f"{path}: {len(part['images'])} images, {len(part['annotations'])} objects")


if __name__ == "__main__":
    run_cli(main)
