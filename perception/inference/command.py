"""What the command lines of folder runs share."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from perception.engine.errors import UserError
from perception.engine.overrides import KeyValues
from perception.inference.arguments import positive
from perception.inference.engines.engine import Engine
from perception.inference.engines.local import Local
from perception.inference.engines.ray_engine import RayEngine
from perception.inference.folder import Job, run
from perception.inference.kinds import Kind

EPILOG = """what OUT holds:
{outputs}
  predictions.jsonl   one line for each of the {units}, written as the run goes
  index.html, page/   a page to look at, in any browser, from the disk
  skipped.json        files that could not be used, with reasons
  run.json            what the run was started with

An interrupted run continues where it stopped when the same command is started again.
Exit status: 0 all {units} done, 3 some skipped, 1 nothing could be done, 2 wrong usage.

example:
{example}"""


def make_parser(description: str, example: str, kind: type[Kind]) -> argparse.ArgumentParser:
    """A parser whose `--help` says what a kind writes; it has no arguments yet."""
    return argparse.ArgumentParser(
        description=description,
        epilog=EPILOG.format(outputs=kind.outputs, units=kind.units, example=example),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_run_options(parser: argparse.ArgumentParser, kind: type[Kind], batch_size: int) -> None:
    """Options of every run: where to, and how."""
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=batch_size,
        help=f"{kind.units} or parts at a time in the model (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        default=min(4, os.cpu_count() or 1),
        help="processes that read whole files (default: %(default)s)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    parser.add_argument(
        "--pattern", nargs="+", default=[], help="only files whose name or relative path matches, e.g. '*.png' 'cam0/*'"
    )
    parser.add_argument("--no-images", action="store_true", help="write predictions only, draw nothing")
    parser.add_argument("--no-page", action="store_true", help="write no index.html to look at, and nothing for it")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in OUT instead of continuing it")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=KeyValues,
        default={},
        metavar="KEY=VALUE",
        help="override settings of the config, e.g. model.test_cfg.max_per_img=50",
    )
    add_engine_options(parser)


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Options of where a run takes place."""
    group = parser.add_argument_group("on a cluster (see docs/scale.md)")
    group.add_argument(
        "--engine", choices=["local", "ray"], default="local", help="ray: many processes of a Ray cluster"
    )
    group.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="auto, or HOST:PORT of a running cluster (default: $RAY_ADDRESS, or else one of this machine alone)",
    )
    group.add_argument("--actors", type=positive, help="processes with a model (default: as many as there is room for)")
    group.add_argument(
        "--gpus-per-actor", type=_amount, metavar="G", help="may be a part of one (default: 1 if there are any)"
    )
    group.add_argument(
        "--cpus-per-actor", type=_amount, metavar="C", help="cores of an actor, and threads of its model (default: 1)"
    )


def _amount(text: str) -> float:
    """A number that is not negative, for argparse."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not an amount")
    return value


def engine_of(args: argparse.Namespace) -> Engine:
    """The engine that arguments describe.

    Raises:
        UserError: they contradict each other.
    """
    names = ("ray_address", "actors", "gpus_per_actor", "cpus_per_actor")
    given = [name for name in names if getattr(args, name) is not None]
    if args.engine == "local":
        if given:
            raise UserError(f"--{given[0].replace('_', '-')} belongs to --engine ray")
        return Local()
    if args.cpus_per_actor == 0:
        raise UserError("--cpus-per-actor must be more than 0")
    return RayEngine(
        args.ray_address or os.environ.get("RAY_ADDRESS"),
        args.actors,
        args.gpus_per_actor,
        args.cpus_per_actor or 1.0,
    )


def run_command(args: argparse.Namespace, folder: Path, options: dict[str, Any]) -> int:
    """Does the job that arguments describe and prints what came of it.

    Args:
        args: `config`, `checkpoint`, and the options of :func:`add_run_options`.
        folder: what to run on.
        options: arguments of the kind.

    Returns:
        The exit status.
    """
    # File names may hold bytes that are no text.
    sys.stdout.reconfigure(errors="backslashreplace")
    job = Job(
        config=args.config,
        checkpoint=args.checkpoint,
        folder=folder,
        out=args.out,
        batch_size=args.batch_size,
        workers=args.workers,
        device=args.device,
        patterns=args.pattern,
        pictures=not args.no_images,
        page=not args.no_page,
        overwrite=args.overwrite,
        options=options,
        cfg_options=args.cfg_options,
        engine=engine_of(args),
    )
    try:
        report = run(job)
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    print(report.text(), flush=True)
    return 3 if report.skipped else 0
