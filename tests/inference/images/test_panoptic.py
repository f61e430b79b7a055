"""Panoptic segments: mmdet's codes, and COCO's files."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures import INSTANCE_OFFSET, DetDataSample
from mmengine.structures import PixelData
from PIL import Image

from perception.engine.errors import UserError
from perception.inference.folder import Job, run
from perception.inference.images import kind as kind_module
from perception.inference.images.detector import Prepared, _segments
from perception.inference.images.drawing import draw_segments
from perception.inference.images.image_writer import Labels
from perception.inference.images.results import Segments, at_size
from perception.inference.images.sample import ImageSample
from perception.inference.images.segment_writer import SegmentWriter, segment_entries
from perception.inference.images.tiles import Tiling
from perception.inference.scan import Source
from perception.inference.writing import Files

CLASSES = ("ship", "plane", "water")
PALETTE = [(220, 60, 60), (60, 60, 220), (9, 180, 9)]
LABELS = Labels(CLASSES, PALETTE)
VOID = len(CLASSES)


def rgb2id(colours):
    """COCO's definition of an id."""
    red, green, blue = colours.astype(int).transpose(2, 0, 1)
    return red + 256 * green + 256**2 * blue


def _codes():
    """Two ships on water, with a part that is nothing."""
    codes = np.full((40, 60), 2)
    codes[5:15, 10:30] = 0 + 1 * INSTANCE_OFFSET
    codes[20:30, 12:22] = 0 + 2 * INSTANCE_OFFSET
    codes[35:] = VOID
    return codes


def _sample(codes):
    return DetDataSample(pred_panoptic_seg=PixelData(sem_seg=torch.from_numpy(codes)[None]))


def test_codes_become_segments():
    found = _segments(_sample(_codes()), len(CLASSES))
    assert found.labels.tolist() == [2, 0, 0]
    assert found.ids.dtype == np.int32
    assert np.array_equal(found.ids == 0, _codes() == VOID)
    assert (found.ids[5:15, 10:30] == 2).all()
    assert (found.ids[20:30, 12:22] == 3).all()
    assert segment_entries(found.ids, found.labels, CLASSES) == [
        {"id": 1, "category_id": 3, "label": "water", "area": 35 * 60 - 300, "bbox": [0, 0, 60, 35]},
        {"id": 2, "category_id": 1, "label": "ship", "area": 200, "bbox": [10, 5, 20, 10]},
        {"id": 3, "category_id": 1, "label": "ship", "area": 100, "bbox": [12, 20, 10, 10]},
    ]
    half = segment_entries(at_size(found.ids, 119, 80, 2), found.labels, CLASSES)
    assert (half[0]["bbox"], half[1]["area"]) == ([0, 0, 119, 70], 800)


def test_pictures_of_nothing_and_unknown_labels():
    found = _segments(_sample(np.full((4, 4), VOID)), len(CLASSES))
    assert found.labels.tolist() == []
    assert (found.ids == 0).all()
    with pytest.raises(UserError, match="label 3, but only 2"):
        _segments(_sample(_codes()), 2)


def test_the_picture_tells_instances_apart():
    grey = np.full((40, 60, 3), 128, np.uint8)
    picture = np.asarray(draw_segments(grey, _segments(_sample(_codes()), len(CLASSES)), CLASSES, PALETTE)).astype(int)
    first, second = picture[10, 20], picture[25, 17]
    assert first[0] > first[2] + 30
    assert second[0] > second[2] + 30
    assert abs(first - second).sum() > 10


@pytest.fixture
def job(retinanet, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("one.png", "two.jpg"):
        Image.fromarray(np.full((40, 60, 3), 99, np.uint8)).save(folder / name)
    model = SimpleNamespace(
        classes=CLASSES, palette=PALETTE, input_size=None,
        prepare=lambda pixels, name: Prepared({}, pixels.shape),
        predict=lambda batch, score_thr: [_segments(_sample(_codes()), len(CLASSES)) for _ in batch],
    )  # fmt: skip
    monkeypatch.setattr(kind_module, "Detector", lambda *_: model)
    return Job(str(retinanet.config), retinanet.checkpoint, folder, tmp_path / "out", workers=1, device="cpu")


def test_files_are_cocos(job):
    assert run(job).finished == 2
    results = json.loads((job.out / "predictions.json").read_text())
    assert [image["file_name"] for image in results["images"]] == ["one.png", "two.jpg"]
    for annotation, name in zip(results["annotations"], ("one.png", "two.jpg.png"), strict=True):
        assert annotation["file_name"] == name
        with Image.open(job.out / "panoptic" / name) as image:
            ids = rgb2id(np.asarray(image))
        for segment in annotation["segments_info"]:
            assert (ids == segment["id"]).sum() == segment["area"]
        assert (ids == 0).sum() == 300
    (job.out / "panoptic/one.png").unlink()
    again = run(job)
    assert (again.finished, again.reused) == (1, 1)


def test_many_segments_fit_into_the_code(tmp_path):
    ids = np.arange(300 * 300, dtype=np.int32).reshape(300, 300)
    sample = ImageSample(np.zeros((300, 300, 3), np.uint8), 300, 300, 1, 1)
    found = Segments(ids, np.zeros(300 * 300 - 1, np.int64))
    source = Source.of_file("one.png", tmp_path / "one.png", 1)
    SegmentWriter(["one.png"], pictures=False).write(Files(tmp_path), source, sample, found, LABELS)
    with Image.open(tmp_path / "panoptic/one.png") as image:
        assert np.array_equal(rgb2id(np.asarray(image)), ids)


def test_tiles_are_refused(job):
    from dataclasses import replace

    with pytest.raises(UserError, match="without --tile"):
        run(replace(job, options={"tiling": Tiling(32, 8)}))
