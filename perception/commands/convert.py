"""Translate a checkpoint between its authors' layout and ours."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

EPILOG = """examples:
  python tools/convert_checkpoint.py rank_detr rank_detr_r50_12ep.pth data/checkpoints/rank_detr_r50_12e.pth
  python tools/convert_checkpoint.py rank_detr ours.pth authors.pth --to authors
  python tools/convert_checkpoint.py arc AUTHORS.pth OURS.pth --classes plane ship harbor
  python tools/convert_checkpoint.py arc AUTHORS.pth OURS.pth --classes @names.txt     (a file, one name a line)
"""


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The command's parser."""
    projects = Path(importlib.import_module("projects").__file__).parent
    systems = sorted(path.parent.name for path in projects.glob("*/converter.py"))
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        fromfile_prefix_chars="@",
    )
    parser.add_argument("system", choices=systems, help="which system the checkpoint belongs to")
    parser.add_argument("input", type=Path, metavar="IN", help="checkpoint to read")
    parser.add_argument("output", type=Path, metavar="OUT", help="checkpoint to write")
    parser.add_argument(
        "--to",
        choices=["perception", "authors", "start"],
        default="perception",
        help="layout to write; start: initial weights for a system, from a checkpoint of what it builds on",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="names of the classes in the order of their labels, where the file does not know them (or not rightly)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    return parser


def run(args: argparse.Namespace) -> None:
    """Does what the arguments say."""
    from perception.engine.checkpoint import load_checkpoint_file, save_checkpoint_file
    from perception.engine.errors import UserError

    if args.output.exists() and not args.overwrite:
        raise UserError(f"{args.output} exists; choose another name or add --overwrite")
    if args.classes and args.to != "perception":
        raise UserError("--classes goes with --to perception: a checkpoint of ours knows its classes")
    converter = importlib.import_module(f"projects.{args.system}.converter")
    convert = getattr(converter, f"to_{args.to}", None)
    if convert is None:
        raise UserError(f"{args.system} makes no separate start: --to perception is what training begins with")
    read = getattr(converter, "read_checkpoint", load_checkpoint_file)  # some read more than the one file
    result = convert(read(args.input))
    if args.classes:
        result.name_classes(args.classes)
    save_checkpoint_file(result.checkpoint, args.output)
    print(f"{args.output}: {result.num_weights} weights ({result.description})")
    if args.to == "perception" and result.num_classes is not None and not result.names_classes:
        print(
            f"the file does not name its {result.num_classes} classes: predictions will carry the names of the "
            "config's data set, in its order; --classes gives others"
        )
    if result.unmatched:
        print(f"left out, because the model has no place for them: {len(result.unmatched)} keys")
        for key in result.unmatched:
            print(f"  {key}")
