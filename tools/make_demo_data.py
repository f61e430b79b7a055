"""Make the built-in synthetic data sets: small, with exact ground truth, in the formats of real ones."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import typing
from pathlib import Path

from tqdm import tqdm

from perception.datasets.synthetic import FAMILIES, Family, load_family

EPILOG = """example:
  python tools/make_demo_data.py shapes --out data/demo/shapes

Each data set has its own options: python tools/make_demo_data.py shapes --help
A set that is already complete is left as it is; an interrupted run leaves nothing half-done."""


def main() -> None:
    # Without a handler a terminated run could not clean up after itself.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args = parse_args()
    try:
        make(args)
    except KeyboardInterrupt:
        fail("interrupted; nothing was written", status=130)
    except OSError as error:
        fail(f"cannot write {error.filename or args.out}: {error.strerror}" if error.strerror else str(error))
    except ValueError as error:
        fail(str(error))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="family", metavar="DATA_SET", required=True)
    for name, line in FAMILIES.items():
        # Only the family that was asked for is imported: another may need packages that take seconds to load.
        if name in sys.argv[1:]:
            add_options(commands, name, line, load_family(name))
        else:
            commands.add_parser(name, help=line)
    return parser.parse_args()


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
    with tqdm(unit="image", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        summary = family.write(args.out, params, overwrite=args.overwrite, on_progress=show)
    contents = ", ".join(
        f"{split}: " + " and ".join(f"{number} {what}" for what, number in counts.items())
        for split, counts in summary.counts.items()
    )
    state = "made" if summary.created else "already complete, left as it is:"
    print(f"{state} {summary.out} ({contents})")


def fail(message: str, *, status: int = 1) -> typing.NoReturn:
    print(f"make_demo_data: {message}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
