"""Turn annotations of Pascal VOC (XML files), such as DIOR's, into one file of COCO's format."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import _environment  # noqa: F401

from perception.engine.errors import UserError, run_cli

EPILOG = """examples:
  python tools/dataset_converters/voc_to_coco.py data/dior/Annotations data/dior/JPEGImages \\
      --list data/dior/ImageSets/Main/train.txt --out data/dior/train.json
  python tools/dataset_converters/voc_to_coco.py labels images --out labels.json --voc-base 0

VOC counts pixels from 1, and its corners lie within the box: 1 to 10 is 10 pixels wide and becomes [0, ..., 10, ...].
Many sets of its format count from 0. With --voc-base auto, files of which an object begins at 0 count from 0, and what
was found is said. Difficult objects become crowds, which evaluation leaves out."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("annotations", type=Path, metavar="ANNOTATIONS", help="folder of the XML files")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder of the images")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="file to write")
    parser.add_argument("--list", type=Path, metavar="FILE.txt", help="names of the images, one a line (default: all)")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="names by category id (default: all, sorted)")
    parser.add_argument("--voc-base", choices=("auto", "0", "1"), default="auto", help="the first pixel (auto)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE.json if it is there")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from perception.datasets.voc_to_coco import coco_of_voc
    from perception.engine.atomic import output_folder, replacing

    if args.out.exists() and not args.overwrite:
        raise UserError(f"{args.out} exists; choose another file or add --overwrite")
    names = None
    if args.list is not None:
        try:
            names = [line.strip() for line in args.list.read_text().splitlines() if line.strip()]
        except OSError as error:
            raise UserError(f"list of images {args.list} cannot be read: {error.strerror}") from error
    base = None if args.voc_base == "auto" else int(args.voc_base)
    content, base = coco_of_voc(args.annotations, args.images, names, args.classes, base)
    output_folder(args.out.parent)
    with replacing(args.out) as file:
        file.write(json.dumps(content).encode())
    difficult = sum(entry["iscrowd"] for entry in content["annotations"])
    print(
        f"{args.out}: {len(content['images'])} images, {len(content['annotations'])} objects ({difficult} difficult), "
        f"{len(content['categories'])} classes; pixels are counted from {base}"
    )


if __name__ == "__main__":
    run_cli(main)
