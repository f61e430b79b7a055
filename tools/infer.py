"""Run a model over a folder: predictions as files, and pictures of them.

What a folder holds is the model's affair: detectors and segmenters take images; other systems' configs name another
kind of folder, whose options `infer.py CONFIG --help` shows.
"""

# Worker processes import this file once more: whatever is heavy is imported inside the functions.
import argparse
import sys
from pathlib import Path

import _environment  # noqa: F401

from perception.engine.errors import UserError, run_cli

EXAMPLE = """\
  python tools/infer.py configs/demo/rank_detr.py work_dirs/demo/rank_detr/iter_950.pth data/demo/shapes/images/val \\
      --out outputs/shapes
  python tools/infer.py configs/arc.py CHECKPOINT scenes --out outputs/scenes --tile 1024 --overlap 200
"""


def make_parser(kind) -> argparse.ArgumentParser:
    from perception.inference import command

    parser = command.make_parser(__doc__, EXAMPLE, kind)
    parser.add_argument("config", help="config file of the model", metavar="CONFIG")
    parser.add_argument("checkpoint", type=Path, help="its weights", metavar="CHECKPOINT")
    parser.add_argument(
        "folder", type=Path, help=f"folder of {kind.units}, searched recursively; or one file", metavar="FOLDER"
    )
    command.add_run_options(parser, kind, batch_size=4)
    kind.add_options(parser)
    return parser


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    from perception.inference.command import run_command
    from perception.inference.kinds import kind_of_file

    # The config decides which options there are, so it is looked for before they are known.
    first = next((argument for argument in arguments if not argument.startswith("-")), None)
    kind = kind_of_file(first)
    args = make_parser(kind).parse_args(arguments)
    if args.config != first and kind_of_file(args.config) is not kind:
        raise UserError(f"put {args.config} before the options: it decides which ones there are")
    return run_command(args, args.folder, kind.options(args))


if __name__ == "__main__":
    run_cli(main)
