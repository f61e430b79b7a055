"""Merge checkpoints of HBD-Net's stages, which were trained one after the other, into one of both branches."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

EPILOG = """examples:
  python tools/merge_stages.py --native work_dirs/hbd_net/native/epoch_18.pth \\
      --reduced work_dirs/hbd_net/down16/epoch_2.pth --out work_dirs/hbd_net/merged.pth

The result is for configs/hbd_net/merged.py as it is, and a start for configs/hbd_net/from_stages.py. Of the stages on
reduced images give the one that does best on the levels that matter: each was trained on the weights of the one before.
"""


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--native", type=Path, required=True, metavar="FILE", help="stage on native images")
    parser.add_argument("--reduced", type=Path, required=True, metavar="FILE", help="stage on reduced images")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="checkpoint to write")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    return parser


def run(args: argparse.Namespace) -> None:
    """Does what the arguments say."""
    from perception.engine.checkpoint import load_checkpoint_file, save_checkpoint_file
    from perception.engine.errors import UserError
    from projects.hbd_net.stages import merge_stages

    if args.out.exists() and not args.overwrite:
        raise UserError(f"{args.out} exists; choose another name or add --overwrite")
    native, reduced = (load_checkpoint_file(path) for path in (args.native, args.reduced))
    if args.native.resolve() == args.reduced.resolve():
        raise UserError(
            f"--native and --reduced are the same file; to start both branches from one detector, use "
            f"python tools/convert_checkpoint.py hbd_net {args.native} {args.out}"
        )
    merged = merge_stages(native, reduced)
    save_checkpoint_file(merged, args.out)
    print(f"{args.out}: {len(merged['state_dict'])} weights of both branches, without fusion")
