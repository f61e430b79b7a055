"""Make the smaller images of a radiance scene: `images_4` beside `images`."""

from __future__ import annotations

import argparse
from pathlib import Path

import _environment  # noqa: F401

from perception.engine.errors import run_cli

EPILOG = """example:
  python tools/dataset_converters/shrink_images.py data/nerf_llff_data/fern --factor 4

Small pixels are averages of the areas that they cover; files are PNG. A folder that is there already is left alone."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scene", type=Path, metavar="SCENE", help="folder that holds the folder of images")
    parser.add_argument("--factor", type=int, required=True, help="how many times smaller the images become")
    parser.add_argument("--images", default="images", metavar="NAME", help="folder to read (default: images)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from perception.datasets.shrinking import shrink_folder
    from perception.engine.making import image_progress

    out = args.scene / f"{args.images}_{args.factor}"
    with image_progress() as show:
        count = shrink_folder(args.scene / args.images, out, args.factor, show)
    print(f"{out}: {count} images")


if __name__ == "__main__":
    run_cli(main)
