"""Run a model over a folder: predictions as files, and pictures of them.

What a folder holds is the model's affair: detectors and segmenters take images; other systems' configs name another
kind of folder, whose options `infer.py CONFIG --help` shows.
"""

# Worker processes import this file once more: whatever is heavy is imported inside the functions.
import argparse
import os
import sys
from pathlib import Path

import _environment  # noqa: F401

from perception.engine.errors import UserError, run_cli

EPILOG = """what OUT holds:
{outputs}
  predictions.jsonl   one line for each of the {units}, written as the run goes
  skipped.json        files that could not be used, with reasons
  run.json            what the run was started with

An interrupted run continues where it stopped when the same command is started again.
Exit status: 0 all {units} done, 3 some skipped, 1 nothing could be done, 2 wrong usage.

example:
  python tools/infer.py configs/demo/rank_detr.py work_dirs/demo/rank_detr/iter_950.pth data/demo/shapes/images/val \\
      --out outputs/shapes
  python tools/infer.py configs/arc.py CHECKPOINT scenes --out outputs/scenes --tile 1024 --overlap 200
"""


def make_parser(kind) -> argparse.ArgumentParser:
    from mmengine.config import DictAction

    from perception.inference.arguments import positive

    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EPILOG.format(outputs=kind.outputs, units=kind.units),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="config file of the model", metavar="CONFIG")
    parser.add_argument("checkpoint", type=Path, help="its weights", metavar="CHECKPOINT")
    parser.add_argument(
        "folder", type=Path, help=f"folder of {kind.units}, searched recursively; or one file", metavar="FOLDER"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--batch-size", type=positive, default=4, help=f"{kind.units} or parts at a time in the model (default: 4)"
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
    parser.add_argument("--overwrite", action="store_true", help="replace the run in OUT instead of continuing it")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help="override settings of the config, e.g. model.test_cfg.max_per_img=50",
    )
    kind.add_options(parser)
    return parser


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    # File names may hold bytes that are no text.
    sys.stdout.reconfigure(errors="backslashreplace")
    from perception.inference.folder import Job, run
    from perception.inference.kinds import kind_of_file

    # The config decides which options there are, so it is looked for before they are known.
    first = next((argument for argument in arguments if not argument.startswith("-")), None)
    kind = kind_of_file(first)
    parser = make_parser(kind)
    args = parser.parse_args(arguments)
    if args.config != first and kind_of_file(args.config) is not kind:
        raise UserError(f"put {args.config} before the options: it decides which ones there are")
    job = Job(
        config=args.config,
        checkpoint=args.checkpoint,
        folder=args.folder,
        out=args.out,
        batch_size=args.batch_size,
        workers=args.workers,
        device=args.device,
        patterns=args.pattern,
        pictures=not args.no_images,
        overwrite=args.overwrite,
        options=kind.options(args),
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
