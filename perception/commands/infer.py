"""Run a model over a folder: predictions as files, and pictures of them.

What a folder holds is the model's affair: detectors and segmenters take images; other systems' configs name another
kind of folder, whose options `infer.py CONFIG --help` shows.
"""

# Worker processes import this file once more: whatever is heavy is imported inside the functions.
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from perception.engine.errors import UserError

EPILOG = """\
  python tools/infer.py configs/demo/rank_detr.py work_dirs/demo/rank_detr/iter_950.pth data/demo/shapes/images/val \\
      --out outputs/shapes
  python tools/infer.py configs/arc.py CHECKPOINT scenes --out outputs/scenes --tile 1024 --overlap 200
"""


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The command's parser: the config among the arguments decides which options there are."""
    from perception.inference import command
    from perception.inference.kinds import kind_of_file

    kind = kind_of_file(_first_word(arguments))
    parser = command.make_parser(__doc__, EPILOG, kind)
    parser.add_argument("config", help="config file of the model", metavar="CONFIG")
    parser.add_argument("checkpoint", type=Path, help="its weights", metavar="CHECKPOINT")
    parser.add_argument(
        "folder", type=Path, help=f"folder of {kind.units}, searched recursively; or one file", metavar="FOLDER"
    )
    command.add_run_options(parser, kind, batch_size=4)
    kind.add_options(parser)
    parser.set_defaults(kind=kind)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the model that the arguments name."""
    from perception.inference.command import run_command
    from perception.inference.kinds import kind_of_file

    if kind_of_file(args.config) is not args.kind:
        raise UserError(f"put {args.config} before the options: it decides which ones there are")
    return run_command(args, args.folder, args.kind.options(args))


def _first_word(arguments: Sequence[str]) -> str | None:
    return next((argument for argument in arguments if not argument.startswith("-")), None)
