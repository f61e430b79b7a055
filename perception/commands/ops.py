"""Say which operators have native kernels here, and why; or compile them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

EPILOG = """examples:
  perception ops                      the list
  perception ops build                compile for the CPU and, where nvcc is found, for CUDA
  perception ops build --help         its options
"""


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", nargs="?", choices=["list", "build"], default="list", help="default: list")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of build")
    return parser


def run(args: argparse.Namespace) -> None:
    """Does what the arguments say."""
    if args.action == "build":
        from perception.ops.build import main

        main(args.options)
    else:
        from perception.ops.__main__ import main

        main()
