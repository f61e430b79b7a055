"""Print a config with everything it inherits, or write it to one file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from perception.engine.overrides import KeyValues

EPILOG = """examples:
  python tools/print_config.py configs/rank_detr.py
  python tools/print_config.py configs/rank_detr.py --key model.criterion
  python tools/print_config.py configs/rank_detr.py --cfg-options train_dataloader.batch_size=4 --out full.py
"""


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file")
    parser.add_argument("--key", help="print only this part, e.g. model.backbone")
    parser.add_argument("--out", metavar="FILE", help="write the whole config to FILE (.py, .json or .yaml)")
    parser.add_argument("--cfg-options", nargs="+", action=KeyValues, metavar="KEY=VALUE", help="override settings")
    return parser


def run(args: argparse.Namespace) -> None:
    """Does what the arguments say."""
    from perception.engine.atomic import output_folder
    from perception.engine.config import load_config, subconfig

    cfg = load_config(args.config, args.cfg_options)
    if args.out:
        output_folder(Path(args.out).parent)
        cfg.dump(args.out)
    print((subconfig(cfg, args.key) if args.key else cfg).pretty_text)
