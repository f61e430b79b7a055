"""Look for panoramas in a gallery of satellite tiles, and say where in the best tile each was taken.

The gallery is encoded once, into --bank; later runs encode only what has changed.
"""

# Worker processes import this file once more: whatever is heavy is imported inside the functions.
import argparse
from pathlib import Path

import _environment  # noqa: F401

from perception.engine.errors import UserError, run_cli

EXAMPLE = """\
  python tools/retrieve.py configs/unifygeo.py CHECKPOINT --queries panoramas --gallery satellite --zoom 20 --out OUT
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    from perception.inference.command import add_run_options, make_parser
    from perception.inference.retrieval.kind import Panoramas, add_retrieval_options

    parser = make_parser(__doc__, EXAMPLE, Panoramas)
    parser.add_argument("config", help="config file of the model", metavar="CONFIG")
    parser.add_argument("checkpoint", type=Path, help="its weights", metavar="CHECKPOINT")
    parser.add_argument(
        "--queries", type=Path, required=True, help="folder of panoramas, searched recursively; or one panorama"
    )
    add_retrieval_options(parser)
    add_run_options(parser, Panoramas, batch_size=8)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse_args(arguments)
    from perception.inference.command import run_command
    from perception.inference.kinds import kind_of_file
    from perception.inference.retrieval.kind import Panoramas, retrieval_options

    if not issubclass(kind_of_file(args.config), Panoramas):
        raise UserError(f"{args.config} is not a config of a model that retrieves, such as configs/unifygeo.py")
    return run_command(args, args.queries, retrieval_options(args))


if __name__ == "__main__":
    run_cli(main)
