"""Make built-in data, train Rank-DETR on it, evaluate, and draw its boxes on the validation images."""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import _environment  # noqa: F401

from perception.engine.errors import UserError, run_cli

EXAMPLE = """example:
  python tools/demo.py --data data/demo/shapes --work-dir work_dirs/demo/rank_detr

Run it again and it continues where it stopped; a finished training is not repeated.
"""
CONFIG = "configs/demo/rank_detr.py"
NUM_TRAIN, NUM_VAL = 1000, 40


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/demo/shapes"), help="folder of the built-in data")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/demo/rank_detr"), help="folder for results")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    start = time.monotonic()
    pictures = args.work_dir / "predictions"
    root = f"{args.data}/"
    options = [f"{split}_dataloader.dataset.data_root={root}" for split in ("train", "val", "test")]

    step(1, "make the data", "make_demo_data.py", "shapes", "--out", args.data, "--num-train", NUM_TRAIN,
         "--num-val", NUM_VAL, "--overwrite")  # fmt: skip
    if finished_checkpoint(args.work_dir) is None:
        resume = ["--resume"] if (args.work_dir / "last_checkpoint").is_file() else []
        step(2, "train, then evaluate", "train.py", CONFIG, "--work-dir", args.work_dir, *resume, "--seed", 0,
             "--cfg-options", *options, show=r"Iter\((train|val)\).*")  # fmt: skip
    checkpoint = finished_checkpoint(args.work_dir)
    if checkpoint is None:
        raise UserError(f"training ended without a checkpoint in {args.work_dir}")
    step(3, "draw what it finds in images it has not seen", "infer.py", CONFIG, checkpoint,
         args.data / "images" / "val", "--out", pictures, "--overwrite")  # fmt: skip

    metrics = last_metrics(args.work_dir)
    print(f"\ndone in {time.monotonic() - start:.0f} s")
    print(f"  AP    {metrics['coco/bbox_mAP']:.3f}  (mean over IoU 0.50 to 0.95, {NUM_VAL} unseen images)")
    print(f"  AP50  {metrics['coco/bbox_mAP_50']:.3f}")
    print(f"  pictures    {pictures}/images/")
    print(f"  detections  {pictures}/predictions.json")
    print("next:")
    print(f"  python tools/infer.py {CONFIG} {checkpoint} YOUR_FOLDER --out OUT")
    print("  python tools/train.py configs/rank_detr.py        # the paper's recipe, with COCO in data/coco")
    print("  (first: source .venv/bin/activate)")


def step(number: int, title: str, tool: str, *arguments: object, show: str = ".*") -> None:
    """Runs one tool, showing the lines of its output that match ``show``; all of them if it fails."""
    command = [f"tools/{tool}", *map(str, arguments)]
    print(f"\n[{number}/3] {title}\n  python {shlex.join(command)}", flush=True)
    # Threads that spin long while they wait make training many times slower once another program wants the core.
    environment = {"GOMP_SPINCOUNT": "2000", **os.environ}
    lines = []
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
        env=environment,
    ) as process:
        for line in process.stdout:
            lines.append(line)
            match = re.search(show, line)
            if match and match[0].strip():
                print(f"  {match[0].strip()[:118]}", flush=True)
    if process.returncode:
        raise UserError(f"{tool} failed (exit code {process.returncode}):\n{''.join(lines[-40:])}")


def finished_checkpoint(work_dir: Path) -> Path | None:
    """The checkpoint of a finished training, which has its metrics."""
    pointer = work_dir / "last_checkpoint"
    if not pointer.is_file() or last_metrics(work_dir) is None:
        return None
    return work_dir / Path(pointer.read_text().strip()).name


def last_metrics(work_dir: Path) -> dict | None:
    """The newest validation result in the logs of a work directory."""
    for log in sorted(work_dir.glob("*/vis_data/scalars.json"), reverse=True):
        for line in reversed(log.read_text().splitlines()):
            values = json.loads(line)
            if "coco/bbox_mAP_50" in values:
                return values
    return None


if __name__ == "__main__":
    run_cli(main)
