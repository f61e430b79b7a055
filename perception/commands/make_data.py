"""Make the built-in synthetic data sets: small, with exact ground truth, in the formats of real ones."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path

from perception.datasets.synthetic import FAMILIES, Family, load_family
from perception.engine.making import image_progress, run_maker

PROGRAM = "make_demo_data"
EPILOG = """example:
  python tools/make_demo_data.py shapes --out data/demo/shapes

Each data set has its own options: python tools/make_demo_data.py shapes --help
A set that is already complete is left as it is; an interrupted run leaves nothing half-done."""


def run(args: argparse.Namespace) -> None:
    """Does what the arguments say."""
    run_maker(PROGRAM, args.out, lambda: make(args))


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="family", metavar="DATA_SET", required=True)
    for name, line in FAMILIES.items():
        # Only the family that was asked for is imported: another may need packages that take seconds to load.
        if name in arguments:
            add_options(commands, name, line, load_family(name))
        else:
            commands.add_parser(name, help=line)
    return parser


def add_options(commands: argparse._SubParsersAction, name: str, line: str, family: Family) -> None:
    """One option per field of the family's `Params`."""
    parser = commands.add_parser(
        name,
        help=line,
        description=line,
        epilog=f"example:\n  {family.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default_out = Path("data/demo") / name
    parser.add_argument("--out", type=Path, default=default_out, help=f"folder to make (default: {default_out})")
    types = typing.get_type_hints(family.Params)
    for option in dataclasses.fields(family.Params):
        parser.add_argument(
            f"--{option.name.replace('_', '-')}",
            type=types[option.name],
            default=option.default,
            help=f"{option.metadata['help']} (default: {option.default})",
        )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a generated data set that has other parameters or lost files"
    )


def make(args: argparse.Namespace) -> None:
    family = load_family(args.family)
    params = family.Params(**{option.name: getattr(args, option.name) for option in dataclasses.fields(family.Params)})
    with image_progress() as show:
        summary = family.write(args.out, params, overwrite=args.overwrite, on_progress=show)
    contents = ", ".join(
        f"{split}: " + " and ".join(f"{number} {what}" for what, number in counts.items())
        for split, counts in summary.counts.items()
    )
    state = "made" if summary.created else "already complete, left as it is:"
    print(f"{state} {summary.out} ({contents})")
