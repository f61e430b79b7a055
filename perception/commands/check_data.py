"""Look at the data of a config: what is wrong with them, statistics, and a sheet of labelled samples."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from perception.engine.overrides import KeyValues

EPILOG = """exit status: 0 nothing or only warnings, 1 errors, 2 wrong usage

examples:
  python tools/check_data.py configs/demo/rank_detr.py
  python tools/check_data.py my.py --splits train --images 100000 --sheets outputs/sheets
"""


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--splits", nargs="+", choices=["train", "val", "test"], default=["train", "val", "test"], help="default: all"
    )
    parser.add_argument(
        "--images",
        type=int,
        default=2000,
        metavar="N",
        help="open at most N images of each split (default: 2000); names and annotations are looked at all",
    )
    parser.add_argument(
        "--sheets", type=Path, metavar="FOLDER", help="folder for SPLIT.jpg (default: data_check in the work directory)"
    )
    parser.add_argument("--no-sheets", action="store_true", help="draw no sheets")
    parser.add_argument("--cfg-options", nargs="+", action=KeyValues, metavar="KEY=VALUE", help="override settings")
    return parser


def run(args: argparse.Namespace) -> int:
    """Does what the arguments say."""
    from perception.engine.config import load_config
    from perception.engine.data_check import draw_sheets, examine

    cfg = load_config(args.config, args.cfg_options)
    report = examine(cfg, tuple(args.splits), limit=args.images)
    print(report.text())
    if not args.no_sheets and not report.errors:
        for sheet in draw_sheets(cfg, tuple(args.splits), args.sheets or Path(cfg.work_dir, "data_check")):
            print(f"sheet: {sheet}")
    return 1 if report.errors else 0
