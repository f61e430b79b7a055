"""Evaluate a checkpoint on the test split of a config."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from perception.engine.overrides import KeyValues

EPILOG = """examples:
  python tools/test.py configs/demo/rank_detr.py work_dirs/demo/rank_detr/iter_950.pth
  python tools/test.py configs/rank_detr.py CHECKPOINT --out predictions.pkl --show-dir pictures
"""


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--work-dir", help="folder for logs and metrics (default: work_dirs/CONFIG)")
    parser.add_argument("--out", metavar="FILE.pkl", help="also write all predictions to this pickle file")
    parser.add_argument("--show-dir", help="also draw predictions beside the ground truth into this folder")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none", help="job launcher")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=KeyValues,
        metavar="KEY=VALUE",
        help="override settings, e.g. test_dataloader.batch_size=4",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Does what the arguments say."""
    from perception.engine.config import load_config
    from perception.engine.run import build_test_runner

    cfg = load_config(args.config, args.cfg_options, args.work_dir)
    cfg.launcher = args.launcher
    build_test_runner(cfg, args.checkpoint, out=args.out, show_dir=args.show_dir).test()
