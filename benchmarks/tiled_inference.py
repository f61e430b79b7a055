"""Huge images in tiles, against SAHI with the same detector: tiles a second and peak memory by image size.

Each run is a process of its own, because peak memory belongs to a process; runs alternate (ours, theirs, theirs, ours).
Both read a JPEG from disk, run the same tiles and merge; neither draws. SAHI's model for mmdet runs one tile at a time,
whatever batch is asked for; ours runs both ways.

    pip install sahi
    python benchmarks/tiled_inference.py --sizes 2048 4096 8192 16384
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from folder_inference import make_folder, settle_model

import perception  # noqa: F401  (operators for mmcv)

CONTESTANTS = ("ours", "ours, one tile a batch", "sahi")
OVERLAP = 0.2


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="detector (default: mmdet's RTMDet-tiny)")
    parser.add_argument("--checkpoint", type=Path, help="its weights (default: random)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 4096, 8192], help="sides of the images")
    parser.add_argument("--tile", type=int, default=640, help="side of a tile (default: 640)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each (default: 2)")
    parser.add_argument("--batch-size", type=int, default=4, help="tiles a batch (default: 4)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch and OpenCV (default: all cores)")
    parser.add_argument("--boxes", type=int, default=30, help="detections a tile (default: 30)")
    parser.add_argument("--largest-of-peer", type=int, default=1 << 20, help="larger images are ours alone")
    parser.set_defaults(images=20, workers=1)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        make_folder(place / "samples", args.images)
        config, checkpoint = settle_model(args, place / "samples", place)
        print(f"{'size':>6} {'tiles':>6}  {'':<24}{'tiles/s':>8} {'peak MiB':>9} {'detections':>11}  (medians)")
        for size in args.sizes:
            image = place / f"{size}.jpg"
            make_image(image, size)
            runs: dict[str, list[dict]] = {name: [] for name in CONTESTANTS}
            names = CONTESTANTS if size <= args.largest_of_peer else CONTESTANTS[:2]
            for turn in range(args.rounds):
                for name in names if turn % 2 == 0 else names[::-1]:
                    runs[name].append(child(args, name, config, checkpoint, image, place / f"{size} {turn} {name}"))
            for name in names:
                rates, peaks = ([run[key] for run in runs[name]] for key in ("rate", "peak"))
                first = runs[name][0]
                print(
                    f"{size:>6} {first['tiles']:>6}  {name:<24}{statistics.median(rates):>8.2f} "
                    f"{statistics.median(peaks):>9.0f} {first['found']:>11}  "
                    f"({', '.join(f'{rate:.2f}' for rate in rates)})",
                    flush=True,
                )


def child(args, name, config, checkpoint, image, out) -> dict:
    """One run in a process of its own."""
    settings = dict(
        name=name, config=str(config), checkpoint=str(checkpoint), image=str(image), out=str(out), tile=args.tile,
        batch=1 if "one" in name else args.batch_size, threads=args.threads,
    )  # fmt: skip
    command = [sys.executable, __file__, "--child", json.dumps(settings)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def run_child(settings: dict) -> None:
    import cv2
    import torch

    quiet()
    torch.set_num_threads(settings["threads"])
    cv2.setNumThreads(settings["threads"])
    tiles, seconds, found = (run_sahi if settings["name"] == "sahi" else run_ours)(settings)
    print(json.dumps({"tiles": tiles, "rate": tiles / seconds, "peak": peak_memory(), "found": found}))


def peak_memory() -> float:
    """MiB. (`getrusage` would count what the parent held when it forked.)"""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def quiet() -> None:
    from mmengine.logging import MMLogger

    MMLogger.get_instance("mmengine").setLevel("ERROR")


def run_ours(settings: dict) -> tuple[int, float, int]:
    from perception.inference.folder import Job, run
    from perception.inference.images.tiles import Tiling

    job = Job(
        config=settings["config"], checkpoint=Path(settings["checkpoint"]), folder=Path(settings["image"]),
        out=Path(settings["out"]), batch_size=settings["batch"], device="cpu", pictures=False,
        options={"score_thr": 0.0, "tiling": Tiling(settings["tile"], round(OVERLAP * settings["tile"]))},
    )  # fmt: skip
    summary = run(job)
    record = json.loads((job.out / "predictions.jsonl").read_text())
    return record["tiles"], summary.seconds, len(record["detections"])


def run_sahi(settings: dict) -> tuple[int, float, int]:
    from sahi.models.mmdet import MmdetDetectionModel
    from sahi.predict import get_sliced_prediction

    model = MmdetDetectionModel(
        model_path=settings["checkpoint"], config_path=settings["config"], device="cpu", confidence_threshold=0.0
    )
    slices = []
    started = time.perf_counter()
    result = get_sliced_prediction(
        settings["image"], model, slice_height=settings["tile"], slice_width=settings["tile"],
        overlap_height_ratio=OVERLAP, overlap_width_ratio=OVERLAP, perform_standard_pred=False, verbose=0,
        postprocess_type="NMS", postprocess_match_metric="IOU", batch_size=settings["batch"],
        progress_callback=lambda done, total: slices.append(total),
    )  # fmt: skip
    return slices[-1], time.perf_counter() - started, len(result.object_prediction_list)


def make_image(path: Path, size: int) -> None:
    """A JPEG of a repeated photograph-like patch."""
    import pyvips

    sample = pyvips.Image.new_from_file(str(path.parent / "samples" / "00000.jpg"))
    patch = sample.resize(1024 / sample.width, vscale=1024 / sample.height).copy_memory()
    repeats = -(-size // 1024)
    patch.replicate(repeats, repeats).crop(0, 0, size, size).write_to_file(str(path))


if __name__ == "__main__":
    if "--child" in sys.argv:
        run_child(json.loads(sys.argv[2]))
    else:
        main()
