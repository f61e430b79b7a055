"""Cut the images and labels of DOTA, or of a data set in its format, into square patches."""

from __future__ import annotations

import argparse

import _environment  # noqa: F401
from _splitting import add_folders, add_shares, add_writing, cut, fail_for_what_is_left_out

from perception.datasets.dota_split import SplitParams, split
from perception.engine.making import run_maker

PROGRAM = "split_dota"
EPILOG = """examples:
  one scale, training and validation images together:
    python tools/dataset_converters/split_dota.py data/dota/train data/dota/val --out data/split_ss_dota/trainval
  images without labels:
    python tools/dataset_converters/split_dota.py data/dota/test --no-labels --out data/split_ss_dota/test
  three scales:
    python tools/dataset_converters/split_dota.py data/dota/train data/dota/val --out data/split_ms_dota/trainval \\
        --gaps 500 --rates 0.5 1.0 1.5

Each folder holds images/ and labelTxt/. The result has images/ and annfiles/; an interrupted run leaves nothing
half-done, and a complete result is left as it is. Images may be of any kind that tools/infer.py reads, and labels are
those of the upright image. Images that cannot be read are named and left out, label files without image are named, and
the exit status is 1 then."""


def main() -> None:
    args = parse_args()
    run_maker(PROGRAM, args.out, lambda: run(args))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = SplitParams()
    add_folders(parser)
    parser.add_argument("--sizes", nargs="+", type=int, default=default.sizes, help="sides of the windows (1024)")
    parser.add_argument("--gaps", nargs="+", type=int, default=default.gaps, help="overlaps of neighbours (200)")
    parser.add_argument("--rates", nargs="+", type=float, default=default.rates, help="divide sizes and gaps (1.0)")
    add_shares(parser, default.image_share, default.object_share)
    add_writing(parser, default.pad)
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    params = SplitParams(
        sizes=tuple(args.sizes),
        gaps=tuple(args.gaps),
        rates=tuple(args.rates),
        image_share=args.image_share,
        object_share=args.object_share,
        pad=tuple(args.pad),
    )
    summary, orphans = cut(PROGRAM, args, split, params)
    counts = summary.counts["patches"]
    contents = ", ".join(f"{counts[what]} {what}" for what in ("images", "patches", "objects"))
    state = "made" if summary.created else "already complete, left as it is:"
    print(f"{state} {summary.out} ({contents})")
    fail_for_what_is_left_out(PROGRAM, counts["unreadable"], orphans)


if __name__ == "__main__":
    main()
