"""Folder inference against mmdet's DetInferencer: images a second on the same folder with the same weights.

Both decode, resize, predict, draw every image and write JSON. Runs alternate in one process (ours, theirs, theirs,
ours, ...); then each stage is timed by itself, to show where the time goes.

    python benchmarks/folder_inference.py                          # RTMDet-tiny, random weights
    python benchmarks/folder_inference.py --config configs/demo/rank_detr.py --checkpoint CHECKPOINT
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

# Width, height, suffix, and how many of a hundred: web images, video frames, phone photographs, screenshots.
MIX = (
    (640, 480, ".jpg", 35),
    (480, 640, ".jpg", 15),
    (1280, 720, ".jpg", 20),
    (1920, 1080, ".jpg", 14),
    (4032, 3024, ".jpg", 6),
    (800, 600, ".png", 10),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="detector (default: mmdet's RTMDet-tiny)")
    parser.add_argument("--checkpoint", type=Path, help="its weights (default: random)")
    parser.add_argument("--images", type=int, default=200, help="how many to make (default: 200)")
    parser.add_argument("--rounds", type=int, default=4, help="runs of each (default: 4)")
    parser.add_argument("--batch-size", type=int, default=4, help="of both (default: 4)")
    parser.add_argument("--workers", type=int, default=2, help="decoding processes of ours (default: 2)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch and OpenCV (default: all cores)")
    parser.add_argument("--boxes", type=int, default=10, help="boxes an image that are written and drawn (default: 10)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    import cv2
    import torch
    from mmengine.logging import MMLogger

    MMLogger.get_instance("mmengine").setLevel("ERROR")
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        folder = place / "folder"
        make_folder(folder, args.images)
        config, checkpoint = settle_model(args, folder, place)
        ours, theirs = [], []
        for turn in range(args.rounds):
            order = (run_ours, run_theirs) if turn % 2 == 0 else (run_theirs, run_ours)
            for runner in order:
                rate = args.images / runner(args, config, checkpoint, folder, place / f"{runner.__name__}{turn}")
                (ours if runner is run_ours else theirs).append(rate)
                print(f"  round {turn + 1} {runner.__name__[4:]:>6}: {rate:6.2f} images/s", flush=True)
        print(f"ours   {statistics.median(ours):6.2f} images/s (median of {args.rounds})")
        print(f"theirs {statistics.median(theirs):6.2f} images/s (median of {args.rounds})")
        ratios = [a / b for a, b in zip(ours, theirs)]
        print(f"ratio  {statistics.median(ratios):6.2f} (rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")
        print("milliseconds an image, each stage by itself:")
        for name, stages in (
            ("ours", time_ours(config, checkpoint, folder, place / "stages", args.batch_size)),
            ("theirs", time_theirs(args, config, checkpoint, folder, place / "their_stages")),
        ):
            parts = "  ".join(f"{stage} {1000 * seconds / args.images:.1f}" for stage, seconds in stages.items())
            print(f"{name:>6}: {parts}  sum {1000 * sum(stages.values()) / args.images:.1f}")


def run_ours(args, config, checkpoint, folder, out) -> float:
    """Seconds from the first file to the last, with the model built."""
    from perception.inference.folder import run

    summary = run(make_job(args, config, checkpoint, folder, out))
    assert summary.finished == args.images
    assert not summary.skipped
    return summary.seconds


def run_theirs(args, config, checkpoint, folder, out) -> float:
    """Seconds from the first file to the last, with the model built."""
    inferencer = make_inferencer(config, checkpoint)
    started = time.perf_counter()
    inferencer(str(folder), batch_size=args.batch_size, pred_score_thr=0.0, no_save_pred=False, out_dir=str(out))
    seconds = time.perf_counter() - started
    assert len(list((out / "vis").iterdir())) == len(list((out / "preds").iterdir())) == args.images
    return seconds


def make_job(args, config, checkpoint, folder, out):
    from perception.inference.folder import Job

    return Job(
        config=str(config),
        checkpoint=checkpoint,
        folder=folder,
        out=out,
        batch_size=args.batch_size,
        workers=args.workers,
        device="cpu",
        options={"score_thr": 0.0},
    )


def make_inferencer(config, checkpoint):
    from mmdet.apis import DetInferencer

    return DetInferencer(str(config), str(checkpoint), device="cpu", show_progress=False)


def time_ours(config, checkpoint, folder, out, batch_size) -> dict[str, float]:
    """Seconds of each stage over the whole folder, one after the other in this process."""
    from functools import partial

    import torch
    from mmengine.config import Config

    from perception.inference.images.kind import Images
    from perception.inference.kinds import Running
    from perception.inference.output import OutputFolder

    kind, cfg = Images(score_thr=0.0), Config.fromfile(config)
    predictor = kind.predictor(cfg, checkpoint, Running(batch_size, 0, torch.device("cpu"), pictures=True))
    meta, reader = kind.meta(cfg, checkpoint, predictor), kind.reader(predictor)
    found = reader.scan(folder, (), out)
    output = OutputFolder(out, {}, found, partial(kind.writers, pictures=True))
    seconds: dict[str, float] = defaultdict(float)
    groups: dict[tuple[int, ...], list] = defaultdict(list)

    def timed(stage, function, *inputs):
        started = time.perf_counter()
        result = function(*inputs)
        seconds[stage] += time.perf_counter() - started
        return result

    (writer,) = (writer for writer in output.writers if writer.key == "detections")
    writer.draw = partial(timed, "draw", writer.draw)

    def write(source, sample, found):
        head = {"file_name": source.name, "file_size": source.file_size}
        output.add(head | writer.write(output.files, source, sample, found, meta))

    def flush(group):
        batch = [prepared for _, _, prepared in group]
        for (source, sample, _), found in zip(group, timed("model", predictor.predict, batch)):
            timed("write", write, source, sample, found)
        group.clear()

    for source in found.sources:
        sample = timed("decode", reader.read, source, True)
        prepared = timed("preprocess", predictor.prepare, source, sample)
        group = groups[prepared.shape]
        group.append((source, sample, prepared))
        if len(group) == batch_size:
            flush(group)
    for group in groups.values():
        if group:
            flush(group)
    timed("write", output.finish, meta, {})
    output.close()
    seconds["write"] -= seconds["draw"]
    return {stage: seconds[stage] for stage in ("decode", "preprocess", "model", "draw", "write")}


def time_theirs(args, config, checkpoint, folder, out) -> dict[str, float]:
    """Seconds of each stage, measured inside of an ordinary run."""
    inferencer = make_inferencer(config, checkpoint)
    seconds: dict[str, float] = defaultdict(float)

    def clocked(stage, function):
        def wrapper(*inputs, **options):
            started = time.perf_counter()
            result = function(*inputs, **options)
            seconds[stage] += time.perf_counter() - started
            return result

        return wrapper

    load, *rest = inferencer.pipeline.transforms
    inferencer.pipeline.transforms = [clocked("decode", load), *(clocked("preprocess", step) for step in rest)]
    inferencer.forward = clocked("model", inferencer.forward)
    inferencer.visualize = clocked("decode again, draw, save picture", inferencer.visualize)
    inferencer.postprocess = clocked("write", inferencer.postprocess)
    inferencer(str(folder), batch_size=args.batch_size, pred_score_thr=0.0, no_save_pred=False, out_dir=str(out))
    return dict(seconds)


def settle_model(args, folder, place) -> tuple[Path, Path]:
    """The detector's config, changed to yield `--boxes` detections an image, and its weights."""
    import mmdet
    import torch
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    from perception.inference.images.detector import Detector
    from perception.inference.images.reader import ImageReader

    stock = Path(mmdet.__file__).parent / ".mim/configs/rtmdet/rtmdet_tiny_8xb32-300e_coco.py"
    config, checkpoint = Path(args.config or stock), args.checkpoint
    cfg = Config.fromfile(config)
    if checkpoint is None:
        from mmdet.datasets import CocoDataset

        init_default_scope("mmdet")
        torch.manual_seed(0)
        cfg.model.backbone.init_cfg = None
        model = MODELS.build(cfg.model)
        model.init_weights()
        settle_normalisation(model)
        checkpoint = place / "random.pth"
        torch.save({"state_dict": model.state_dict(), "meta": {"dataset_meta": CocoDataset.METAINFO}}, checkpoint)
    detector = Detector(cfg, checkpoint, torch.device("cpu"))
    limits = cfg.model.test_cfg.get("rcnn", cfg.model.test_cfg)
    if "score_thr" in limits:
        # Weights that are not trained score everything alike: let through what a trained model would at its threshold.
        reader = ImageReader(detector.input_size)
        sample = [reader.read(source, alone=True) for source in reader.scan(folder, (), place).sources[:20]]
        found = [detector.predict([detector.prepare(image.pixels, "sample")], 0.0)[0].scores for image in sample]
        limits.score_thr = float(min(scores[min(10 * args.boxes, len(scores) - 1)] for scores in found))
    limits.max_per_img = args.boxes
    parameters = sum(value.numel() for value in torch.load(checkpoint, weights_only=False)["state_dict"].values())
    print(
        f"{config.name}, {parameters / 1e6:.1f} M parameters, input {dataclasses.astuple(detector.input_size)}, "
        f"{args.images} images, batches of {args.batch_size}, {args.threads} threads, {args.workers} workers"
    )
    settled = place / "config.py"
    cfg.dump(settled)
    return settled, checkpoint


def settle_normalisation(model) -> None:
    """Gives batch norm the statistics of noise; without them an untrained network's signal dies out or explodes."""
    import torch
    from mmdet.models import SingleStageDetector

    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    with torch.no_grad():
        features = model.train().extract_feat(torch.randn(4, 3, 320, 320))
        if isinstance(model, SingleStageDetector):
            model.bbox_head(features)


def make_folder(folder: Path, count: int) -> None:
    """Photograph-like noise (equal energy in each octave) with hard-edged shapes, in the sizes of `MIX`."""
    import cv2
    import numpy as np

    folder.mkdir()
    kinds = [kind for kind in MIX for _ in range(kind[3])]
    generator = np.random.default_rng(0)
    for index, choice in enumerate(generator.permutation(np.arange(count) * len(kinds) // count)):
        width, height, suffix, _ = kinds[choice]
        image = np.full((height, width, 3), 128, np.float32)
        for octave in range(3, 9):
            coarse = generator.normal(0, 14, (2 + (height >> octave), 2 + (width >> octave), 3)).astype(np.float32)
            image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        image = image.clip(0, 255).astype(np.uint8)
        for _ in range(8):
            centre = (int(generator.integers(width)), int(generator.integers(height)))
            colour = tuple(int(value) for value in generator.integers(0, 256, 3))
            cv2.circle(image, centre, int(generator.integers(10, height // 4)), colour, -1)
        cv2.imwrite(str(folder / f"{index:05d}{suffix}"), image)


if __name__ == "__main__":
    main()
