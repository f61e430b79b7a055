"""What a detector of driving scenes has to beat: the same boxes in every frame, learned from the training frames.

For each class: where its objects lie around the vehicle, counted in cells of 2 m. The most frequented cells are
predicted in every frame, each with the mean box of its objects and its share of the frames as score. Scored by
nuScenes' devkit, as `tools/test.py` scores a model.

    python benchmarks/driving_baseline.py data/demo/driving
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from perception.datasets.driving.infos import CLASSES, Frame, box_array, decode_frame, read_infos
from perception.evaluation.nuscenes_detection import evaluate
from perception.evaluation.nuscenes_results import MOST_BOXES, Detections, result_rows, write_results

CELL = 2.0  # metres


def mean_boxes(frames: list[Frame]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Boxes (n, 9) in the LiDAR's frame, scores (n,) and names, the same for each frame."""
    found = defaultdict(list)
    for frame in frames:
        points = np.add(frame.objects.lidar_points, frame.objects.radar_points)
        for box, name, count in zip(box_array(frame.objects), frame.objects.names, points, strict=True):
            if name in CLASSES and count > 0:
                place = tuple(np.floor(box[:2] / CELL).astype(int))
                found[name, place].append(box)
    boxes, scores, names = [], [], []
    for (name, _), group in found.items():
        stacked = np.stack(group)
        known = np.isfinite(stacked)
        box = np.where(known, stacked, 0.0).sum(0) / known.sum(0).clip(1)
        # The mean heading of objects that come and go would be across the street: the usual one, up to half a turn.
        box[6] = np.angle(np.exp(2j * stacked[:, 6]).mean()) / 2
        boxes.append(box)
        scores.append(len(group) / len(frames))
        names.append(name)
    best = np.argsort(scores)[::-1][:MOST_BOXES]
    return np.stack(boxes)[best], np.array(scores)[best], [names[k] for k in best]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="a data set in nuScenes' format, with its info files")
    parser.add_argument("--train", default="infos_train.msgpack")
    parser.add_argument("--val", default="infos_val.msgpack")
    args = parser.parse_args()
    training, held_out = read_infos(args.root / args.train), read_infos(args.root / args.val)
    boxes, scores, names = mean_boxes([decode_frame(raw) for raw in training.frames])
    results = {}
    for frame in map(decode_frame, held_out.frames):
        detections = Detections(
            torch.from_numpy(boxes),
            torch.from_numpy(scores),
            names,
            torch.tensor(frame.ego_from_lidar, dtype=torch.float64),
            torch.tensor(frame.global_from_ego, dtype=torch.float64),
        )
        results[frame.token] = result_rows(frame.token, detections)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results_nusc.json"
        write_results(path, results)
        numbers = evaluate(path, args.root, held_out.version, held_out.split)
    print("  ".join(f"{name} {numbers[name]:.4f}" for name in ("mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE", "mAAE")))


if __name__ == "__main__":
    main()
