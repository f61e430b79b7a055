"""What the programs have in common that cut images in DOTA's form into patches."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from perception.datasets.dota_split import find_sources, labels_without_image
from perception.datasets.folders import listed
from perception.datasets.synthetic.folder import Summary
from perception.engine.making import fail, image_progress
from perception.inference.images.raster import open_windows


def add_folders(parser: argparse.ArgumentParser) -> None:
    """FOLDER..., --out and the folder of labels."""
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="holds images/ and labelTxt/")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument("--labels", default="labelTxt", help="name of the label folder (default: labelTxt)")
    labels.add_argument("--no-labels", action="store_const", dest="labels", const=None, help="there are no labels")


def add_shares(parser: argparse.ArgumentParser, image_share: float, object_share: float) -> None:
    """Which windows are kept, and which objects in them."""
    parser.add_argument(
        "--image-share", type=float, default=image_share, help=f"of a window that has to be image ({image_share})"
    )
    parser.add_argument(
        "--object-share", type=float, default=object_share, help=f"of an object inside its window ({object_share})"
    )


def add_writing(parser: argparse.ArgumentParser, pad: tuple[int, int, int]) -> None:
    """How patches are written."""
    text = " ".join(str(value) for value in pad)
    parser.add_argument("--pad", nargs=3, type=int, default=pad, metavar=("R", "G", "B"), help=f"colour ({text})")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="threads that write (default: all cores)")
    parser.add_argument("--overwrite", action="store_true", help="replace a result of other files or options")


def cut(program: str, args: argparse.Namespace, split: Callable[..., Summary], params: Any) -> tuple[Summary, list]:
    """Runs `split` with what these options say.

    Returns:
        Its summary, and label files that have no image.

    Raises:
        ValueError: no thread is to write.
    """
    if args.workers < 1:
        raise ValueError(f"--workers must be at least 1, not {args.workers}")
    sources = find_sources(args.folders, args.labels)
    orphans = [] if args.labels is None else labels_without_image(args.folders, args.labels, sources)
    with image_progress() as show:
        summary = split(
            sources,
            args.out,
            params,
            open_image=open_windows,
            overwrite=args.overwrite,
            workers=args.workers,
            on_progress=show,
            on_problem=lambda text: tqdm.write(f"{program}: {text}", file=sys.stderr),
        )
    return summary, orphans


def fail_for_what_is_left_out(program: str, unreadable: int, orphans: Sequence) -> None:
    """Ends the program with a sentence if an image could not be read, or a label file has no image."""
    problems = []
    if unreadable:
        problems.append(f"{unreadable} images could not be read and are left out")
    if orphans:
        problems.append(f"{len(orphans)} label files have no image: {listed(orphans)}")
    if problems:
        fail(program, "; ".join(problems))
