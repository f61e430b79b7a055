"""Runs without models: results that are made up, written by the real writers, with their page."""

import math
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from perception.datasets.clouds.cloud import Cloud
from perception.datasets.masks import MaskCrop
from perception.datasets.palette import default_palette
from perception.inference.clouds.predictor import Track, Tracks
from perception.inference.clouds.sequences import CloudDetails
from perception.inference.clouds.showing import CloudsShowing
from perception.inference.clouds.writer import TrackWriter
from perception.inference.images.box_writer import BoxWriter
from perception.inference.images.image_writer import Labels
from perception.inference.images.label_map_writer import LabelMapWriter
from perception.inference.images.results import Detections, LabelMap, Segments
from perception.inference.images.sample import ImageSample
from perception.inference.images.segment_writer import SegmentWriter
from perception.inference.images.showing import ImagesShowing
from perception.inference.output import OutputFolder
from perception.inference.retrieval.match_writer import MatchWriter
from perception.inference.retrieval.model import Fix
from perception.inference.retrieval.places import Place
from perception.inference.retrieval.query_reader import Panorama
from perception.inference.retrieval.ranking import Found, Match
from perception.inference.retrieval.showing import MatchesShowing
from perception.inference.scan import Scan, Source
from perception.inference.showing import shown_summaries, write_run_page

CLASSES = ("ship", "plane", "car", "bridge")
LABELS = Labels(CLASSES, default_palette(len(CLASSES)))
SIZE = (120, 160)  # height, width


def scene(generator, size=SIZE):
    """Pixels of a ground with a few blobs, and the masks of the blobs with their classes."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    ground = generator.integers(60, 200, 3)
    pixels = ground + 25 * np.sin(x / generator.uniform(5, 30) + generator.uniform(0, 6))[..., None]
    pixels = pixels + 15 * np.sin(y / generator.uniform(5, 30))[..., None]
    masks, labels = [], []
    for _ in range(int(generator.integers(0, 7))):
        cx, cy = generator.uniform(15, width - 15), generator.uniform(15, height - 15)
        a, b, turn = generator.uniform(6, 24), generator.uniform(4, 12), generator.uniform(0, np.pi)
        dx, dy = x - cx, y - cy
        along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        mask = (along / a) ** 2 + (across / b) ** 2 <= 1
        pixels[mask] = generator.integers(0, 255, 3)
        masks.append((mask, (cx, cy, 2 * a, 2 * b, turn)))
        labels.append(int(generator.integers(len(CLASSES))))
    return pixels.clip(0, 255).astype(np.uint8), masks, labels


def image_results(generator, kind, size=SIZE):
    """A sample and what is found in it: `masks`, `rotated`, `labels` or `segments`."""
    pixels, masks, labels = scene(generator, size)
    height, width = size
    sample = ImageSample(pixels, width, height, 1, 1)
    if kind in ("labels", "segments"):
        values = np.full(size, 255 if kind == "labels" else 0, np.int32)
        for number, ((mask, _), label) in enumerate(zip(masks, labels), start=1):
            values[mask] = label if kind == "labels" else number
        if kind == "labels":
            return sample, LabelMap(values.astype(np.uint8))
        kept = [number for number in range(1, len(masks) + 1) if (values == number).any()]
        ids = np.zeros_like(values)
        for new, number in enumerate(kept, start=1):
            ids[values == number] = new
        return sample, Segments(ids, np.array([labels[number - 1] for number in kept], np.int64))
    scores = np.sort(generator.uniform(0.3, 1, len(masks)).astype(np.float32))[::-1]
    if kind == "rotated":
        boxes = np.array([box for _, box in masks], np.float32).reshape(-1, 5)
        boxes[:, 4] = (boxes[:, 4] + np.pi / 2) % np.pi - np.pi / 2
        return sample, Detections(boxes, scores, np.array(labels, np.int64))
    boxes, crops = [], []
    for mask, _ in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        boxes.append((left, top, right, bottom))
        crops.append(MaskCrop(int(left), int(top), mask[top:bottom, left:right]))
    return sample, Detections(np.array(boxes, np.float32).reshape(-1, 4), scores, np.array(labels, np.int64), crops)


def cloud_results(generator, place):
    """A cloud of a street with two targets on their ways."""
    ground = np.column_stack([generator.uniform(-40, 40, (3000, 2)), generator.normal(-1.7, 0.05, 3000)])
    tracks, points = [], [ground]
    for number, (category, aside, speed) in enumerate((("Car", 4.0, 0.8), ("Pedestrian", -3.0, 0.2)), start=1):
        length, width, height = (4.2, 1.8, 1.6) if category == "Car" else (0.7, 0.7, 1.75)
        trail = torch.tensor([[5 + speed * step, aside] for step in range(place + 1)], dtype=torch.float64)
        box = torch.tensor([*trail[-1].tolist(), -1.7 + height / 2, length, width, height, 0.1], dtype=torch.float64)
        around = generator.uniform(-0.5, 0.5, (400, 3)) * (length, width, height) + box[:3].numpy()
        points.append(around)
        tracks.append(Track(f"t{number}", category, number, box, 0.9 - 0.01 * place, 400, "ok", trail))
    xyz = np.concatenate(points).astype(np.float32)
    return xyz, Tracks("sensor", tracks, 0, {}, torch.eye(4, dtype=torch.float64))


def query_results(generator):
    """A panorama, and the tiles that are likest, of which two were compared with it."""
    pixels = np.full((40, 80, 3), generator.integers(0, 255, 3), np.uint8)
    matches = [
        Match(f"folder/tile_{number}.png", round(0.9 - 0.07 * number - 0.2 * generator.random() * (number == 0), 6),
              0.25 if number < 2 else None, Place(50 + number / 1000, 8.0), ())
        for number in range(12)
    ]  # fmt: skip
    heat = np.full((8, 8), 1 / 64, np.float32)
    tiles = [np.full((32, 32, 3), 40 * number, np.uint8) for number in range(5)]
    return Panorama(pixels), Found(matches, 64, Fix(0.1, -0.2, 1 / 64, heat), Place(50.0001, 8.0001), tiles)


def write_run(out: Path, names, kind, seed=0, skipped=None, page=True, drawn=True):
    """A run over made-up sources of these names; those that are `skipped` have reasons."""
    skipped = skipped or {}
    clouds, queries = kind == "clouds", kind == "matches"
    showing = CloudsShowing() if clouds else MatchesShowing() if queries else ImagesShowing()
    sources = [_source(name, clouds) for name in names]

    def writers(all_names):
        if queries:
            return [MatchWriter(all_names, drawn, {all_names[0]: Place(50.0001, 8.0)})]
        return [
            one(all_names, drawn) for one in ([TrackWriter] if clouds else [BoxWriter, LabelMapWriter, SegmentWriter])
        ]

    def summaries(all_names):
        return shown_summaries(writers(all_names), showing, all_names, page)

    with closing(OutputFolder(out, {}, Scan(sources), summaries)) as output:
        places = {}
        for number, source in enumerate(sources):
            if output.has(source):
                continue
            generator = np.random.default_rng((seed, number))
            if clouds:
                place = places[source.sequence] = places.get(source.sequence, -1) + 1
                xyz, found = cloud_results(generator, place)
                sample = Cloud(xyz)
            elif queries:
                sample, found = query_results(generator)
            else:
                sample, found = image_results(generator, kind if isinstance(kind, str) else kind[number % len(kind)])
            writer = next(writer for writer in output.writers if writer.takes(found))
            head = {"file_name": source.name, "file_size": source.file_size}
            if source.sequence:
                head["sequence"] = source.sequence
            output.add(head | writer.write(output.files, source, sample, found, LABELS))
        for sequence in output.lost_sequences():
            output.finish_sequence(sequence, LABELS)
        output.finish(None if queries else LABELS, skipped)
        words = ("cloud", "clouds") if clouds else ("query", "queries") if queries else ("image", "images")
        write_run_page(output, sources, out.parent / "folder", showing, words, LABELS, skipped)
    return out / "index.html"


def _source(name, clouds):
    details = CloudDetails(0) if clouds else None
    return _Standing(name, (Path(name),), 1, name.rpartition("/")[0] if clouds else "", details)


class _Standing(Source):
    """A source without a file."""

    def modified(self):
        return 0


def main():
    """`python -m tests.inference.pages OUT COUNT KIND...`: a run to look at."""
    out, count, *kinds = sys.argv[1:]
    digits = math.ceil(math.log10(int(count)))
    names = [f"area {number // 400}/{number:0{digits}d}.jpg" for number in range(int(count))]
    skipped = {f"area 0/broken {number}.jpg": "damaged: image file is truncated" for number in range(7)}
    print(write_run(Path(out), names, kinds[0] if len(kinds) == 1 else tuple(kinds), skipped=skipped))


if __name__ == "__main__":
    main()
