"""Look for panoramas in a gallery of satellite tiles, and say where in the best tile each was taken.

The gallery is encoded once, into --bank; later runs encode only what has changed.
"""

# Worker processes import this file once more: whatever is heavy is imported inside the functions.
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from perception.engine.errors import UserError

EPILOG = """\
  python tools/retrieve.py configs/unifygeo.py CHECKPOINT --queries panoramas --gallery satellite --zoom 20 --out OUT
"""


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The command's parser."""
    from perception.inference import command
    from perception.inference.retrieval.kind import Panoramas, add_retrieval_options

    parser = command.make_parser(__doc__, EPILOG, Panoramas)
    parser.add_argument("config", help="config file of the model", metavar="CONFIG")
    parser.add_argument("checkpoint", type=Path, help="its weights", metavar="CHECKPOINT")
    parser.add_argument(
        "--queries", type=Path, required=True, help="folder of panoramas, searched recursively; or one panorama"
    )
    add_retrieval_options(parser)
    command.add_run_options(parser, Panoramas, batch_size=8)
    return parser


def run(args: argparse.Namespace) -> int:
    """Looks for what the arguments name."""
    from perception.inference.command import run_command
    from perception.inference.kinds import kind_of_file
    from perception.inference.retrieval.kind import Panoramas, retrieval_options

    if not issubclass(kind_of_file(args.config), Panoramas):
        raise UserError(f"{args.config} is not a config of a model that retrieves, such as configs/unifygeo.py")
    return run_command(args, args.queries, retrieval_options(args))
