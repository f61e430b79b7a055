"""Look for panoramas in a gallery of satellite tiles, and say where in the best tile each was taken."""

# Worker processes import this file once more: whatever is heavy is imported inside the functions.
import argparse
import os
import sys
from pathlib import Path

import _environment  # noqa: F401

from perception.engine.errors import UserError, run_cli

EPILOG = """what OUT holds:
{outputs}
  predictions.jsonl   one line for each query, written as the run goes
  skipped.json        queries that could not be used, with reasons
  run.json            what the run was started with

The gallery is encoded once, into --bank; later runs encode only what has changed. An interrupted run continues where it
stopped when the same command is started again.
Exit status: 0 all queries done, 3 some skipped, 1 nothing could be done, 2 wrong usage.

example:
  python tools/retrieve.py configs/unifygeo.py CHECKPOINT --queries panoramas --gallery satellite --zoom 20 --out OUT
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    from mmengine.config import DictAction

    from perception.inference.arguments import positive
    from perception.inference.retrieval.kind import Panoramas, add_retrieval_options

    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EPILOG.format(outputs=Panoramas.outputs),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="config file of the model", metavar="CONFIG")
    parser.add_argument("checkpoint", type=Path, help="its weights", metavar="CHECKPOINT")
    parser.add_argument(
        "--queries", type=Path, required=True, help="folder of panoramas, searched recursively; or one panorama"
    )
    add_retrieval_options(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--batch-size", type=positive, default=8, help="queries at a time (default: %(default)s)")
    parser.add_argument(
        "--workers",
        type=positive,
        default=min(4, os.cpu_count() or 1),
        help="processes that read (default: %(default)s)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    parser.add_argument("--pattern", nargs="+", default=[], help="only queries whose name or relative path matches")
    parser.add_argument("--no-images", action="store_true", help="draw nothing")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in OUT instead of continuing it")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help="override settings of the config, e.g. model.rerank_topk=10",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse_args(arguments)
    # File names may hold bytes that are no text.
    sys.stdout.reconfigure(errors="backslashreplace")
    from perception.inference.folder import Job, run
    from perception.inference.kinds import kind_of_file
    from perception.inference.retrieval.kind import Panoramas, retrieval_options

    if not issubclass(kind_of_file(args.config), Panoramas):
        raise UserError(f"{args.config} is not a config of a model that retrieves, such as configs/unifygeo.py")
    job = Job(
        config=args.config,
        checkpoint=args.checkpoint,
        folder=args.queries,
        out=args.out,
        batch_size=args.batch_size,
        workers=args.workers,
        device=args.device,
        patterns=args.pattern,
        pictures=not args.no_images,
        overwrite=args.overwrite,
        options=retrieval_options(args),
        cfg_options=args.cfg_options,
    )
    try:
        report = run(job)
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    print(report.text(), flush=True)
    return 3 if report.skipped else 0


if __name__ == "__main__":
    run_cli(main)
