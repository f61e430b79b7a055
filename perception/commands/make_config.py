"""Write a config for your own data: it inherits a recipe, reads the classes from the data and sizes the heads."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from perception.engine.errors import UserError

EPILOG = """what --train and --val are, by recipe:
  boxes, instances (COCO's format)   ANNOTATIONS.json IMAGES, or the folder of an export (Roboflow, CVAT, labelme2coco)
  panoptic segments                  ANNOTATIONS.json IMAGES MAPS
  rotated boxes (DOTA's format)      LABELS IMAGES, or a folder that holds annfiles/ (or labelTxt/) and images/
  semantic segmentation              MASKS IMAGES, or a folder that holds annotations/ (or masks/) and images/

examples:
  python tools/make_config.py configs/rank_detr.py --train train.json images/train --val val.json images/val \\
      --out my.py
  python tools/make_config.py configs/rank_detr.py --train export/train --val export/valid --out my.py \\
      --load-from rank_detr_r50.pth --epochs 24
  python tools/make_config.py configs/arc.py --train patches/train --val patches/val --out ships.py
  python tools/make_config.py configs/freqfusion.py --train masks/train images/train --val masks/val images/val \\
      --classes road building tree --out land_cover.py

then:
  python tools/train.py my.py
"""


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="config to inherit, such as configs/rank_detr.py, or rank_detr by name")
    parser.add_argument("--train", nargs="+", required=True, metavar="PATH", help="training data, see below")
    parser.add_argument("--val", nargs="+", required=True, metavar="PATH", help="data to evaluate with, see below")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.py", help="config to write")
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="some classes only, in this order; for masks: what their values are",
    )
    parser.add_argument("--zero-is-unlabelled", action="store_true", help="masks: the value 0 is no class")
    parser.add_argument(
        "--load-from", metavar="CHECKPOINT", help="weights to start from; of other classes, without the head"
    )
    parser.add_argument(
        "--batch-size", type=positive, metavar="N", help="images of a step and GPU (default: the recipe's)"
    )
    parser.add_argument("--gpus", type=positive, default=1, metavar="N", help="number of GPUs (default: 1)")
    parser.add_argument(
        "--epochs", type=positive, metavar="N", help="stretch the recipe's schedule to N passes over the training data"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE.py if it is there")
    return parser


def run(args: argparse.Namespace) -> int:
    """Does what the arguments say."""
    from perception.engine.config import load_config
    from perception.engine.data_check import examine
    from perception.engine.make_config import Wishes, make_config

    if args.out.suffix != ".py":
        raise UserError(f"--out must end in .py, got {args.out}")
    if args.out.exists() and not args.overwrite:
        raise UserError(f"{args.out} is there already; --overwrite replaces it")
    names = {key: value for key, value in vars(args).items() if key != "overwrite"}
    for note in make_config(Wishes(**names)):
        print(note)
    report = examine(load_config(str(args.out)), ("train", "val"))
    for warning in report.warnings:
        print(f"warning: {warning}")
    print(f"{args.out} is written")
    report.raise_errors()
    print(f"look at the data: python tools/check_data.py {args.out}\ntrain: python tools/train.py {args.out}")
    return 0


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value
