"""The page of a test run: its measures, its order, and what a browser shows of it."""

import json
import re

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from PIL import Image

from perception.engine.page.compared import Boxes, ComparedPage, boxes_of, f1, mean_iou, truth_of
from tests.browser import opened_browser

CLASSES = ("ship", "car")


def boxes(*rows, scores=None, labels=None):
    values = torch.tensor(rows, dtype=torch.float32).reshape(len(rows), -1 if rows else 4)
    labels = torch.tensor(labels or [0] * len(rows))
    return Boxes(values, labels, None if scores is None else torch.tensor(scores, dtype=torch.float32))


def test_f1_pairs_each_truth_once_and_by_class():
    truth = boxes((0, 0, 10, 10), (20, 0, 30, 10))
    assert f1(truth, boxes((0, 0, 10, 10), (20, 0, 30, 10), scores=[0.9, 0.8])) == 1
    # Two boxes on one ship: one of them is a false alarm, and the other ship is missed.
    assert f1(truth, boxes((0, 0, 10, 10), (0, 0, 10, 9), scores=[0.9, 0.8])) == pytest.approx(0.5)
    assert f1(truth, boxes((0, 0, 10, 10), scores=[0.9], labels=[1])) == 0
    # A surer box that overlaps both takes the one that it fits best, and leaves the other.
    near = boxes((0, 0, 10, 10), (2, 0, 12, 10))
    assert f1(near, boxes((2, 0, 12, 10), (1, 0, 11, 10), scores=[0.9, 0.8])) == 1
    assert f1(boxes(), boxes(scores=[])) == 1
    assert f1(boxes(), boxes((0, 0, 1, 1), scores=[0.9])) == 0
    assert f1(truth, boxes(scores=[])) == 0


def test_f1_of_rotated_boxes():
    truth = boxes((50, 50, 40, 10, 0.0))
    assert f1(truth, boxes((50, 50, 40, 10, 0.05), scores=[0.9])) == 1
    # The same upright box around it, turned by a right angle: hardly any overlap.
    assert f1(truth, boxes((50, 50, 40, 10, 1.5), scores=[0.9])) == 0


def test_truth_that_is_upright_or_empty():
    upright = boxes((0, 0, 10, 10))
    assert f1(upright, boxes((5, 5, 10, 10, 0.0), scores=[0.9])) == 1
    assert f1(boxes(), boxes((5, 5, 10, 10, 0.0), scores=[0.9])) == 0
    nothing = InstanceData(bboxes=torch.zeros(0, 8), labels=torch.zeros(0, dtype=torch.long))
    assert boxes_of(nothing).boxes.shape == (0, 4)


def test_test_sets_without_labels_have_no_measure(tmp_path):
    assert truth_of(DetDataSample(gt_instances=InstanceData())) is None
    assert truth_of(DetDataSample()) is None
    compared, pixels = ComparedPage(tmp_path, CLASSES), np.zeros((20, 30, 3), np.uint8)
    for name in ("b.png", "a.png"):
        Image.fromarray(pixels).save(tmp_path / name)
        compared.add_boxes(tmp_path / name, pixels, None, boxes((0, 0, 10, 10), scores=[0.9]))
    compared.finish()
    text = (tmp_path / "index.html").read_text()
    assert '"measure":null' in text
    assert text.index('["a.png"') < text.index('["b.png"')
    assert '"truth"' not in (tmp_path / "page/records/00000.js").read_text()


def test_mean_iou_counts_what_is_known():
    truth = np.array([[0, 0, 1, 1], [255, 255, 1, 1]])
    found = np.array([[0, 1, 1, 1], [0, 7, 1, 1]])
    assert mean_iou(truth, found) == pytest.approx((1 / 2 + 4 / 5) / 2)
    assert mean_iou(np.full((2, 2), 255), found[:, :2]) == 1


def test_instances_come_as_boxes_with_their_masks():
    masks = np.zeros((2, 8, 8), bool)
    masks[:, 2:4, 2:6] = True
    truth = InstanceData(
        bboxes=torch.ones(2, 4), labels=torch.tensor([0, 1]), masks=BitmapMasks(masks.astype(int), 8, 8)
    )
    found = InstanceData(
        bboxes=torch.ones(2, 4), labels=torch.tensor([0, 1]), scores=torch.tensor([0.2, 0.9]), masks=torch.tensor(masks)
    )
    assert (boxes_of(truth).masks == masks).all()
    kept = boxes_of(found, found.scores >= 0.3)
    assert kept.labels.tolist() == [1]
    assert kept.masks.shape == (1, 8, 8)


@pytest.fixture
def tested(tmp_path):
    """A page of three images with boxes, of which the second is the worst, and one without anything."""
    compared = ComparedPage(tmp_path / "shown", CLASSES)
    pixels = np.full((60, 90, 3), (90, 120, 90), np.uint8)
    truth = boxes((10, 10, 40, 40), labels=[0])
    found = {
        "good.png": boxes((10, 10, 40, 40), scores=[0.9]),
        "sub/bad #1.png": boxes((60, 10, 80, 40), (50, 10, 70, 40), scores=[0.9, 0.5], labels=[1, 1]),
        "fair.png": boxes((10, 10, 40, 40), (60, 10, 80, 40), scores=[0.9, 0.5]),
    }
    for name, predicted in found.items():
        picture = tmp_path / "shown" / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate([pixels, pixels], 1)).save(picture)
        compared.add_boxes(picture, pixels, truth, predicted)
    compared.finish()
    return tmp_path / "shown" / "index.html"


def test_the_worst_come_first(tested):
    text = tested.read_text()
    rows = json.loads(re.search(r'id="items">(.*?)</script>', text, re.DOTALL)[1])
    assert [(row[0], row[-1]) for row in rows] == [("sub/bad #1.png", 0.0), ("fair.png", 0.6667), ("good.png", 1.0)]
    assert not list(tested.parent.rglob("*.jsonl"))


def test_a_browser_shows_truth_beside_prediction(tested):
    with opened_browser() as browser:
        browser.get(tested.as_uri())
        cells = "[...document.querySelectorAll('.cell:not([hidden])')].map((cell) => cell.innerText)"
        assert browser.execute_script(f"return {cells}")[0].startswith("sub/bad #1.png")
        assert "Worst first, by F1 of boxes" in browser.find_element("id", "note").text
        browser.find_element("css selector", ".cell").click()
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(browser, 20).until(lambda b: len(b.find_elements("css selector", "#panes canvas")) == 2)
        captions = [one.text for one in browser.find_elements("css selector", ".caption")]
        assert captions == ["truth", "prediction"]
        boxes_ = [box.text for box in browser.find_elements("css selector", "#view-classes .word")]
        assert boxes_ == ["car", "ship"]  # what was found, and what was missed
        assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
