"""Pyramids of huge images, against the native image alone with the same detector: megapixels a second and peak memory.

Each run is a process of its own, because peak memory belongs to a process; runs alternate (one, the other, the other,
the one). All read the same file and write their predictions and no picture. `tiles` is the run in tiles of
`Images`; `native` the pyramid's first level alone; `pyramid` all levels. With the small detector that is the default,
reading and merging count; with a real one (`--config`), the detector does.

    python benchmarks/pyramid.py --sizes 4096 8192 16384
    python benchmarks/pyramid.py --config configs/hbd_net.py --sizes 2048 --rounds 1
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from folder_inference import make_folder
from tiled_inference import make_image, peak_memory, quiet

import perception  # noqa: F401  (operators for mmcv)

CONTESTANTS = ("tiles", "native", "pyramid")
SMALL = """
default_scope = "mmrotate"
test_pipeline = [dict(type="mmdet.LoadImageFromFile"), dict(type="mmdet.PackDetInputs")]
test_dataloader = dict(dataset=dict(type="mmrotate.DOTADataset", metainfo=dict(classes=("bridge",)), pipeline=test_pipeline))
model = dict(
    type="mmdet.RetinaNet",
    data_preprocessor=dict(
        type="mmdet.DetDataPreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True, pad_size_divisor=32),
    backbone=dict(type="mmdet.ResNet", depth=18, base_channels=8, stem_channels=8, num_stages=4, out_indices=(1, 2, 3)),
    neck=dict(type="mmdet.FPN", in_channels=[16, 32, 64], out_channels=16, num_outs=3),
    bbox_head=dict(
        type="mmdet.RetinaHead", num_classes=1, in_channels=16, stacked_convs=1, feat_channels=16,
        anchor_generator=dict(
            type="FakeRotatedAnchorGenerator", angle_version="le90", octave_base_scale=4, scales_per_octave=1,
            ratios=[1.0], strides=[8, 16, 32]),
        bbox_coder=dict(
            type="DeltaXYWHTRBBoxCoder", angle_version="le90", norm_factor=None, edge_swap=True, proj_xy=True,
            target_means=(0, 0, 0, 0, 0), target_stds=(1, 1, 1, 1, 1)),
        loss_cls=dict(type="mmdet.FocalLoss"), loss_bbox=dict(type="mmdet.L1Loss")),
    test_cfg=dict(nms_pre=200, min_bbox_size=0, score_thr=0.0, nms=dict(type="nms_rotated", iou_threshold=0.1),
                  max_per_img=30))
"""  # noqa: E501


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="detector of rotated boxes (default: a very small one)")
    parser.add_argument("--checkpoint", type=Path, help="its weights (default: random)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 8192], help="sides of the images")
    parser.add_argument("--formats", nargs="+", default=["jpg"], help="suffixes: jpg, png, tif (default: jpg)")
    parser.add_argument("--patch", type=int, default=1024, help="side of a window (default: 1024)")
    parser.add_argument("--gap", type=int, default=200, help="overlap of windows (default: 200)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each (default: 2)")
    parser.add_argument("--batch-size", type=int, default=4, help="windows a batch (default: 4)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch and OpenCV (default: all cores)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        make_folder(place / "samples", 1)
        config, checkpoint = settle_detector(args, place)
        print(f"{'file':>10} {'':<9}{'windows':>8} {'Mpx/s':>8} {'peak MiB':>9}  (medians)")
        for size in args.sizes:
            make_image(place / f"{size}.jpg", size)
            for suffix in args.formats:
                image = converted(place / f"{size}.jpg", suffix)
                runs: dict[str, list[dict]] = {name: [] for name in CONTESTANTS}
                for turn in range(args.rounds):
                    for name in CONTESTANTS if turn % 2 == 0 else CONTESTANTS[::-1]:
                        out = place / f"{image.name} {turn} {name}"
                        runs[name].append(child(args, name, config, checkpoint, image, out))
                for name in CONTESTANTS:
                    rates, peaks = ([run[key] for run in runs[name]] for key in ("rate", "peak"))
                    print(
                        f"{image.name:>10} {name:<9}{runs[name][0]['windows']:>8} {statistics.median(rates):>8.2f} "
                        f"{statistics.median(peaks):>9.0f}  ({', '.join(f'{rate:.2f}' for rate in rates)})",
                        flush=True,
                    )


def settle_detector(args: argparse.Namespace, place: Path) -> tuple[str, Path]:
    """Config and weights, made where they are not given."""
    import torch
    from mmengine.registry import MODELS, init_default_scope

    from perception.engine.config import load_config

    config = args.config
    if config is None:
        config = str(place / "small.py")
        Path(config).write_text(SMALL)
    if args.checkpoint is not None:
        return config, args.checkpoint
    cfg = load_config(config)
    init_default_scope(cfg.get("default_scope", "mmdet"))
    cfg.model.pop("init_cfg", None)
    if "backbone" in cfg.model:
        cfg.model.backbone.pop("init_cfg", None)
    torch.manual_seed(0)
    checkpoint = place / "weights.pth"
    meta = {"dataset_meta": {"classes": ("bridge",), "palette": [(255, 64, 64)]}}
    torch.save({"state_dict": MODELS.build(cfg.model).state_dict(), "meta": meta}, checkpoint)
    return config, checkpoint


def converted(image: Path, suffix: str) -> Path:
    """The same picture in another format; a TIFF is tiled."""
    if suffix == "jpg":
        return image
    import pyvips

    target = image.with_suffix(f".{suffix}")
    options = dict(tile=True, tile_width=256, tile_height=256, compression="deflate") if suffix == "tif" else {}
    pyvips.Image.new_from_file(str(image), access="sequential").write_to_file(str(target), **options)
    return target


def child(args: argparse.Namespace, name: str, config: str, checkpoint: Path, image: Path, out: Path) -> dict:
    """One run in a process of its own."""
    settings = dict(
        name=name, config=config, checkpoint=str(checkpoint), image=str(image), out=str(out), patch=args.patch,
        gap=args.gap, batch=args.batch_size, threads=args.threads,
    )  # fmt: skip
    command = [sys.executable, __file__, "--child", json.dumps(settings)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def run_child(settings: dict) -> None:
    import cv2
    import torch

    from perception.inference.folder import Job, run
    from perception.inference.images.tiles import Tiling

    quiet()
    torch.set_num_threads(settings["threads"])
    cv2.setNumThreads(settings["threads"])
    patch, gap = settings["patch"], settings["gap"]
    options, kind = {"tiling": Tiling(patch, gap)}, {"type": "Images"}
    if settings["name"] != "tiles":
        options, kind = {"patch": patch, "gap": gap}, {"type": "PyramidImages"}
    if settings["name"] == "native":
        options["levels"] = 1
    job = Job(
        config=settings["config"], checkpoint=Path(settings["checkpoint"]), folder=Path(settings["image"]),
        out=Path(settings["out"]), batch_size=settings["batch"], device="cpu", pictures=False,
        options={"score_thr": 0.0, **options}, cfg_options={"folder_kind": kind},
    )  # fmt: skip
    seconds = run(job).seconds
    record = json.loads((job.out / "predictions.jsonl").read_text())
    megapixels = record["width"] * record["height"] / 1e6
    print(json.dumps({"windows": record["tiles"], "rate": megapixels / seconds, "peak": peak_memory()}))


if __name__ == "__main__":
    if "--child" in sys.argv:
        run_child(json.loads(sys.argv[2]))
    else:
        main()
