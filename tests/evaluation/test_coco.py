"""COCO's metrics evaluate with the annotations of the tested data, whatever the order of their categories."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmengine.logging import MMLogger
from pycocotools import mask as rle

from perception.datasets.coco_file import read_coco
from perception.engine.errors import UserError
from perception.evaluation.coco import CocoObjectsMetric
from tests.datasets.coco_sets import CLASSES, write
from tests.datasets.test_coco import load, renumber, reorder


def predictions(file, classes=CLASSES):
    """The truth with its labels by class, cats shifted a little and one bird missed."""
    data = read_coco(file)
    names = {entry["id"]: entry["name"] for entry in data["categories"]}
    for image in data["images"]:
        truths = [entry for entry in data["annotations"] if entry["image_id"] == image["id"]]
        truths = [entry for entry in truths if names[entry["category_id"]] != "bird"]
        boxes = np.array([entry["bbox"] for entry in truths], float)
        boxes[:, 2:] += boxes[:, :2]
        boxes[:, 0] += [1.5 * (names[entry["category_id"]] == "cat") for entry in truths]
        masks = [_mask(box, image) for box in boxes]
        yield {
            "img_id": image["id"],
            "img_path": str(Path("images", image["file_name"])),
            "ori_shape": (image["height"], image["width"]),
            "pred_instances": {
                "bboxes": torch.tensor(boxes, dtype=torch.float32),
                "scores": torch.linspace(0.9, 0.5, len(truths)),
                "labels": torch.tensor([classes.index(names[entry["category_id"]]) for entry in truths]),
                "masks": masks,
            },
        }


def _mask(box, image):
    x1, y1, x2, y2 = box.round().astype(int)
    mask = np.zeros((image["height"], image["width"]), np.uint8, order="F")
    mask[y1:y2, x1:x2] = 1
    return rle.encode(mask)


def evaluate(file, classes=CLASSES, metric="bbox", metainfo=None, samples=None, **kwargs):
    measure = CocoObjectsMetric(metric=metric, classwise=True, **kwargs)
    measure.dataset_meta = metainfo or load(file, classes, test_mode=True).metainfo
    samples = list(predictions(file, classes)) if samples is None else samples
    measure.process({}, samples)
    return measure.evaluate(len(samples))


def masks_found(folder, entries, masks):
    """Average precision of masks (30, 40), best first, in one image with these objects of one class."""

    def change(data):
        data["images"] = data["images"][:1]
        data["annotations"] = [
            dict(entry, id=number, image_id=1, category_id=1) for number, entry in enumerate(entries, start=1)
        ]

    file = write(folder, change)
    boxes = torch.tensor([rle.toBbox(rle.encode(mask)).tolist() for mask in masks])
    boxes[:, 2:] += boxes[:, :2]
    found = dict(
        bboxes=boxes,
        scores=torch.linspace(0.9, 0.5, len(masks)),
        labels=torch.zeros(len(masks), dtype=torch.long),
        masks=[rle.encode(mask) for mask in masks],
    )
    sample = dict(img_id=1, img_path="images/1.png", ori_shape=(30, 40), pred_instances=found)
    return evaluate(file, metric="segm", samples=[sample])["coco/segm_mAP"]


@pytest.mark.parametrize("metric", ["bbox", "segm"])
def test_equal_to_the_stock_metric_in_the_order_of_the_file(tmp_path, metric):
    file = write(tmp_path)
    stock = CocoMetric(ann_file=str(file), metric=metric, classwise=True)
    stock.dataset_meta = dict(classes=CLASSES)
    stock.process({}, list(predictions(file)))
    expected = stock.evaluate(4)
    assert 0.3 < expected[f"coco/{metric}_mAP"] < 0.7
    assert evaluate(file, metric=metric) == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("change", [reorder, renumber])
@pytest.mark.parametrize("classes", [CLASSES, ("bird", "dog", "cat")])
def test_order_changes_nothing(tmp_path, change, classes):
    expected = evaluate(write(tmp_path / "plain"))
    found = evaluate(write(tmp_path, change), classes)
    assert found == pytest.approx(expected)
    assert found["coco/dog_precision"] == 1
    assert found["coco/bird_precision"] == 0
    assert 0.2 < found["coco/cat_precision"] < 0.9


def test_annotations_are_those_of_the_tested_data(tmp_path):
    file, other = write(tmp_path / "own"), write(tmp_path / "other", reorder, num_images=3)
    metainfo = load(file, test_mode=True).metainfo
    with pytest.raises(UserError, match=r"has no image of this id; leave out ann_file"):
        evaluate(file, metainfo=metainfo, ann_file=str(other))

    def rename(data):
        for image in data["images"]:
            image["file_name"] = f"other_{image['file_name']}"

    renamed = write(tmp_path / "renamed", rename)
    with pytest.raises(UserError, match=r"has 'other_1\.png' under this id"):
        evaluate(file, metainfo=metainfo, ann_file=str(renamed))
    with pytest.raises(UserError, match="the evaluator has no annotations"):
        evaluate(file, metainfo=dict(classes=CLASSES))


def test_a_part_of_the_images(tmp_path):
    file = write(tmp_path)
    whole = evaluate(file)
    part = evaluate(file, samples=list(predictions(file))[1:])
    assert "coco/bird_precision" in part
    assert np.isnan(part["coco/bird_precision"])
    assert part["coco/bbox_mAP"] > whole["coco/bbox_mAP"]


def test_written_results_have_the_ids_of_the_file(tmp_path):
    file = write(tmp_path, renumber)
    scores = evaluate(file, outfile_prefix=str(tmp_path / "out"))
    assert scores == pytest.approx(evaluate(file))
    found = json.loads((tmp_path / "out.bbox.json").read_text())
    assert {entry["category_id"] for entry in found} == {90, 0}
    assert evaluate(file, outfile_prefix=str(tmp_path / "only"), format_only=True) == {}
    assert json.loads((tmp_path / "only.bbox.json").read_text()) == found


def test_ids_that_pycocotools_misreads(tmp_path):
    """Annotation id 0 means unmatched there, and an id that comes twice loses an object."""

    def change(data):
        for number, entry in enumerate(data["annotations"]):
            entry["id"] = number // 2

    assert evaluate(write(tmp_path / "twice", change)) == pytest.approx(evaluate(write(tmp_path)))


def test_masks_without_segmentation(tmp_path):
    def change(data):
        data["annotations"][2]["segmentation"] = []

    file = write(tmp_path, change)
    assert "coco/bbox_mAP" in evaluate(file)
    with pytest.raises(UserError, match=r"1 of 7 objects .* have no segmentation \(number 3"):
        evaluate(file, metric=["bbox", "segm"])


def test_parts_of_masks_that_are_no_polygons(tmp_path, monkeypatch):
    """pycocotools takes the first part for a box, and the whole object with it."""
    said = []
    monkeypatch.setattr(MMLogger.get_current_instance(), "warning", said.append)

    def with_two_points(data):
        data["annotations"][0]["segmentation"].insert(0, [5, 5, 5, 9])

    segm = dict(metric=["bbox", "segm"])
    sound = evaluate(write(tmp_path / "sound"), **segm)
    assert evaluate(write(tmp_path / "parts", with_two_points), **segm) == pytest.approx(sound)
    assert not said

    def alone(data):
        (bird,) = [entry for entry in data["annotations"] if entry["category_id"] == 3]  # which is not found
        bird["segmentation"] = [[5, 5, 5, 9]]

    scores = evaluate(write(tmp_path / "alone", alone), **segm)
    (text,) = said
    assert text.startswith(f"1 of 7 objects of {tmp_path / 'alone' / 'labels.json'} have no polygon of three points")
    assert scores["coco/segm_mAP"] == pytest.approx(1.5 * sound["coco/segm_mAP"], abs=2e-3)  # of two classes


def test_one_object_as_a_crowd_counts_neither_way(tmp_path):
    """Whether it is a crowd has nothing to do with how its mask is stored; without other objects there is no figure."""

    def as_runs(data):
        for entry in data["annotations"]:
            x, y, w, h = entry["bbox"]
            mask = np.zeros((30, 40), np.uint8, order="F")
            mask[y : y + h, x : x + w] = 1
            encoded = rle.encode(mask)
            entry["segmentation"] = dict(size=[30, 40], counts=encoded["counts"].decode())

    segm = dict(metric=["bbox", "segm"])
    lists = evaluate(write(tmp_path / "lists"), **segm)
    assert evaluate(write(tmp_path / "runs", as_runs), **segm) == pytest.approx(lists)

    def all_crowds(data):
        for entry in data["annotations"]:
            entry["iscrowd"] = 1

    scores = evaluate(write(tmp_path / "crowds", all_crowds), **segm)
    assert scores["coco/bbox_mAP"] == scores["coco/segm_mAP"] == -1  # pycocotools' word for no figure


def test_what_lies_in_a_crowd_is_no_false_alarm(tmp_path):
    """Less than half of an object is what is found: of a crowd it counts neither way, of an object it is too little."""
    square = np.zeros((30, 40), np.uint8, order="F")
    square[5:25, 10:30] = 1
    half = np.zeros_like(square)
    half[5:14, 10:30] = 1
    other = np.zeros_like(square)
    other[0:4, 0:4] = 1
    runs = dict(size=[30, 40], counts=rle.encode(square)["counts"].decode())
    figures = {}
    for crowd, form in ((0, runs), (0, [[10, 5, 30, 5, 30, 25, 10, 25]]), (1, runs)):
        entries = [
            dict(iscrowd=crowd, area=400, bbox=[10, 5, 20, 20], segmentation=form),
            dict(iscrowd=0, area=16, bbox=[0, 0, 4, 4], segmentation=[[0, 0, 4, 0, 4, 4, 0, 4]]),
        ]
        figures[crowd, type(form)] = masks_found(tmp_path / f"{crowd}{type(form).__name__}", entries, [half, other])
    assert figures[0, dict] == figures[0, list] == pytest.approx(0.2525, abs=1e-3)  # one of two, after a false alarm
    assert figures[1, dict] == pytest.approx(1.0)


def test_thin_objects_are_evaluated(tmp_path):
    """A line a pixel wide, and a single pixel: found as they are, they are found entirely."""
    line, pixel = (np.zeros((30, 40), np.uint8, order="F") for _ in range(2))
    line[7, 3:9], pixel[29, 39] = 1, 1
    entries = [
        dict(iscrowd=0, area=6, bbox=[3, 7, 6, 1], segmentation=[[3, 7, 9, 7, 9, 8, 3, 8]]),
        dict(iscrowd=0, area=1, bbox=[39, 29, 1, 1], segmentation=[[39, 29, 40, 29, 40, 30, 39, 30]]),
    ]
    assert masks_found(tmp_path, entries, [line, pixel]) == pytest.approx(1.0)


def test_subset_of_classes(tmp_path):
    file = write(tmp_path)
    metainfo = load(file, ("dog",), subset=True, test_mode=True).metainfo
    assert evaluate(file, metainfo=metainfo, samples=list(_dogs(file)))["coco/bbox_mAP"] == 1


def _dogs(file):
    for sample in predictions(file):
        kept = sample["pred_instances"]["labels"] == 1
        found = {key: sample["pred_instances"][key][kept] for key in ("bboxes", "scores", "labels")}
        yield {**sample, "pred_instances": {**found, "labels": found["labels"] * 0}}
