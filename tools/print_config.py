"""Print a config with everything it inherits, or write it to one file."""

import argparse

import _environment  # noqa: F401

from mmengine.config import DictAction

from perception.engine.errors import run_cli

EXAMPLE = """examples:
  python tools/print_config.py configs/rank_detr.py
  python tools/print_config.py configs/rank_detr.py --key model.criterion
  python tools/print_config.py configs/rank_detr.py --cfg-options train_dataloader.batch_size=4 --out full.py
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file")
    parser.add_argument("--key", help="print only this part, e.g. model.backbone")
    parser.add_argument("--out", metavar="FILE", help="write the whole config to FILE (.py, .json or .yaml)")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE", help="override settings")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from perception.engine.config import load_config, subconfig

    cfg = load_config(args.config, args.cfg_options)
    if args.out:
        cfg.dump(args.out)
    print((subconfig(cfg, args.key) if args.key else cfg).pretty_text)


if __name__ == "__main__":
    run_cli(main)
