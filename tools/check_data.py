"""Look at the data of a config: what is wrong with them, statistics, and a sheet of labelled samples."""

import argparse
from pathlib import Path

import _environment  # noqa: F401

from mmengine.config import DictAction

from perception.engine.errors import run_cli

EXAMPLE = """exit status: 0 nothing or only warnings, 1 errors, 2 wrong usage

examples:
  python tools/check_data.py configs/demo/rank_detr.py
  python tools/check_data.py my.py --splits train --images 100000 --sheets outputs/sheets
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
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
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE", help="override settings")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    from perception.engine.config import load_config
    from perception.engine.data_check import draw_sheets, examine

    cfg = load_config(args.config, args.cfg_options)
    report = examine(cfg, tuple(args.splits), limit=args.images)
    print(report.text())
    if not args.no_sheets and not report.errors:
        for sheet in draw_sheets(cfg, tuple(args.splits), args.sheets or Path(cfg.work_dir, "data_check")):
            print(f"sheet: {sheet}")
    return 1 if report.errors else 0


if __name__ == "__main__":
    run_cli(main)
