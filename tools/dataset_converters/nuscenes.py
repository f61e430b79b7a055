"""Collect what training and evaluation need of nuScenes' tables into one info file for each split."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import _environment  # noqa: F401

from perception.engine.errors import UserError, run_cli

# The folder of this file would answer for the devkit, whose package bears the same name.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

EPILOG = """examples:
  python tools/dataset_converters/nuscenes.py data/nuscenes --version v1.0-trainval
  python tools/dataset_converters/nuscenes.py data/demo/driving --version v1.0-mini

The result is infos_SPLIT.msgpack beside the tables' folder, for each of the version's splits: mini_train and mini_val,
train and val, or test."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, metavar="FOLDER", help="the data set: maps/, samples/ and v1.0-*/")
    parser.add_argument("--version", required=True, help="v1.0-trainval, v1.0-mini or v1.0-test")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="of the devkit (default: all of the version)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder to write to (default: the data set's)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from tqdm import tqdm

    from perception.datasets.driving.infos import write_infos
    from perception.datasets.driving.nuscenes_tables import SPLITS, frames_of, open_tables
    from perception.engine.atomic import output_folder

    splits = args.splits or SPLITS.get(args.version)
    if splits is None:
        raise UserError(f"splits of version {args.version} are not known: name them with --splits")
    out = output_folder(args.out or args.root) if args.out or args.root.is_dir() else args.root
    paths = {split: out / f"infos_{split}.msgpack" for split in splits}
    there = [path for path in paths.values() if path.exists()]
    if there and not args.overwrite:
        raise UserError(f"{there[0]} exists; choose another folder with --out or add --overwrite")
    tables = open_tables(args.root, args.version)
    for split, path in paths.items():
        with tqdm(unit="frame", desc=split, disable=None) as bar:

            def show(done: int, total: int, bar: tqdm = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            frames = frames_of(tables, split, show)
        write_infos(path, args.version, split, frames)
        objects = sum(len(frame.objects.names) for frame in frames)
        print(f"{path}: {len(frames)} frames of {len({f.scene for f in frames})} scenes, {objects} objects")


if __name__ == "__main__":
    run_cli(main)
