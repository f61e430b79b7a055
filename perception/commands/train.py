"""Train a model from a config."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from perception.engine.overrides import KeyValues

EPILOG = """examples:
  python tools/train.py configs/demo/rank_detr.py
  python tools/train.py configs/rank_detr.py --amp --cfg-options train_dataloader.batch_size=4
  python tools/train.py configs/rank_detr.py --resume
  torchrun --nproc_per_node 8 tools/train.py configs/rank_detr.py --launcher pytorch
"""


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file")
    parser.add_argument("--work-dir", help="folder for logs and checkpoints (default: work_dirs/CONFIG)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="continue from this checkpoint, or without a value from the newest one in the work directory",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision: float16 on CUDA, bfloat16 on the CPU")
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate by the total batch size over the recipe's (auto_scale_lr.base_batch_size)",
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none", help="job launcher")
    parser.add_argument("--seed", type=_seed, help="random seed (default: the config's, else drawn and logged)")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=KeyValues,
        metavar="KEY=VALUE",
        help='override settings, e.g. train_cfg.max_iters=100 or model.neck.in_channels="[64,128,256]"',
    )
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to 4294967295")
    return int(text)


def run(args: argparse.Namespace) -> None:
    """Does what the arguments say."""
    from mmengine.dist import is_main_process

    from perception.engine.config import load_config
    from perception.engine.curves import curves_of
    from perception.engine.run import build_train_runner, use_amp, use_auto_scale_lr

    cfg = load_config(args.config, args.cfg_options, args.work_dir)
    cfg.launcher = args.launcher
    if args.amp:
        use_amp(cfg)
    if args.auto_scale_lr:
        use_auto_scale_lr(cfg)
    if args.seed is not None:
        cfg.randomness = {**cfg.get("randomness", {}), "seed": args.seed}
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == "auto" else args.resume
    runner = build_train_runner(cfg)
    if is_main_process():
        with curves_of(cfg.work_dir, terminable=cfg.launcher == "none"):
            runner.train()
    else:
        runner.train()
