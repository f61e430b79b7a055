"""Panoptic quality without panopticapi: mmdet's metric and loading run, and agree with torchmetrics."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import LoadPanopticAnnotations
from mmdet.evaluation import INSTANCE_OFFSET, CocoPanopticMetric
from PIL import Image
from torchmetrics.functional.detection import panoptic_quality

from perception.datasets.coco import CocoSegments
from perception.evaluation.coco import CocoSegmentsMetric
from perception.evaluation.panoptic_quality import PQStat, id2rgb, rgb2id

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("panopticapi").origin != "perception.evaluation.panoptic_quality",
    reason="panopticapi is installed",
)
CATEGORIES = [
    {"id": 3, "name": "ship", "isthing": 1},
    {"id": 7, "name": "plane", "isthing": 1},
    {"id": 9, "name": "water", "isthing": 0},
]
META = {"classes": ("ship", "plane", "water"), "thing_classes": ("ship", "plane"), "stuff_classes": ("water",)}


def test_the_code_of_segments():
    ids = np.array([[0, 1, 255], [256, 65536, 256**3 - 1]])
    colours = id2rgb(ids)
    assert colours.dtype == np.uint8
    assert colours[1].tolist() == [[0, 1, 0], [0, 0, 1], [255, 255, 255]]
    assert np.array_equal(rgb2id(colours), ids)
    assert id2rgb(259) == [3, 1, 0]
    assert rgb2id([3, 1, 0]) == 259


def test_averages():
    one, other = PQStat(), PQStat()
    one[3].tp, one[3].iou, one[3].fn = 2, 1.6, 1
    other[3].fp = 1
    other[9].fn = 1
    one += other
    categories = {entry["id"]: entry for entry in CATEGORIES}
    means, each = one.pq_average(categories, None)
    ship = {"pq": 1.6 / 3, "sq": 0.8, "rq": 2 / 3}
    assert each[3] == pytest.approx(ship)
    assert each[7] == each[9] == {"pq": 0, "sq": 0, "rq": 0}
    assert means == pytest.approx({"pq": ship["pq"] / 2, "sq": 0.4, "rq": 1 / 3, "n": 2})  # no plane occurs
    assert one.pq_average(categories, True)[0] == pytest.approx({**ship, "n": 1})
    assert one.pq_average(categories, False)[0] == {"pq": 0, "sq": 0, "rq": 0, "n": 1}


def _segments(rng, shift):
    """Labels and instances (40, 60) of ships and planes on water; `shift` moves them."""
    labels, instances = np.full((40, 60), 2), np.zeros((40, 60), int)
    for index in range(6):
        top, left = rng.integers(0, 28), rng.integers(0, 45)
        place = np.s_[top + shift : top + shift + 10, left + shift : left + shift + 12]
        labels[place], instances[place] = index % 2, index + 1
    return labels, instances


def test_mmdets_metric_agrees_with_torchmetrics(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "truth").mkdir()
    metric_inputs, images, annotations, truths, predictions = [], [], [], [], []
    for index in range(4):
        seed = rng.integers(1 << 30)
        (labels, instances), (found, found_instances) = (
            _segments(np.random.default_rng(seed), shift) for shift in (0, index % 3)
        )
        ids = instances * 4 + labels + 1
        Image.fromarray(id2rgb(ids)).save(tmp_path / "truth" / f"{index}.png")
        infos = [
            {"id": int(number), "category_id": CATEGORIES[(number - 1) % 4]["id"], "iscrowd": 0, "area": int(area)}
            for number, area in zip(*np.unique(ids, return_counts=True))
        ]
        images.append({"id": index, "file_name": f"{index}.jpg", "height": 40, "width": 60})
        annotations.append({"image_id": index, "file_name": f"{index}.png", "segments_info": infos})
        codes = found + found_instances * INSTANCE_OFFSET
        metric_inputs.append(
            {
                "img_id": index, "img_path": f"{index}.jpg", "ori_shape": (40, 60),
                "pred_panoptic_seg": {"sem_seg": torch.from_numpy(codes)[None]},
            }
        )  # fmt: skip
        truths.append(np.stack([labels, instances], -1))
        predictions.append(np.stack([found, found_instances], -1))
    file = tmp_path / "truth.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    metric = CocoPanopticMetric(ann_file=str(file), seg_prefix=str(tmp_path / "truth"), nproc=1)
    metric.dataset_meta = META
    metric.process({}, metric_inputs)
    scores = metric.evaluate(4)
    expected = panoptic_quality(
        torch.from_numpy(np.stack(predictions)), torch.from_numpy(np.stack(truths)),
        things={0, 1}, stuffs={2}, return_sq_and_rq=True,
    )  # fmt: skip
    assert 20 < scores["coco_panoptic/PQ"] < 95
    for name, value in zip(("PQ", "SQ", "RQ"), expected):
        assert scores[f"coco_panoptic/{name}"] == pytest.approx(100 * float(value), abs=1e-3)


def test_annotations_are_loaded(tmp_path):
    ids = np.zeros((8, 10), int)
    ids[2:5, 1:4], ids[6:] = 300, 70000
    Image.fromarray(id2rgb(ids)).save(tmp_path / "truth.png")
    results = LoadPanopticAnnotations(with_bbox=False)(
        {
            "img_shape": (8, 10), "ori_shape": (8, 10), "seg_map_path": str(tmp_path / "truth.png"), "instances": [],
            "segments_info": [
                {"id": 300, "category": 1, "is_thing": True}, {"id": 70000, "category": 2, "is_thing": False},
            ],
        }
    )  # fmt: skip
    assert results["gt_seg_map"][3, 2] == 1
    assert results["gt_seg_map"][7, 0] == 2
    assert results["gt_masks"].masks.sum() == 9


def test_the_order_of_categories_changes_nothing(tmp_path):
    """Annotations and label maps are those of the data set, named as the file names them, with qualities by class."""
    codes = np.zeros((20, 30), int)
    codes[:6, :9], codes[10:] = 1, 2
    found = np.select([codes == 0, codes == 1, codes == 2], [1 + INSTANCE_OFFSET, 2 * INSTANCE_OFFSET, 2])
    found[:6, :4] = 1 + INSTANCE_OFFSET
    (tmp_path / "maps").mkdir()
    Image.fromarray(id2rgb(codes + 5)).save(tmp_path / "maps" / "truth_0.png")
    infos = [
        {"id": code, "category_id": category, "bbox": [0, 0, 9, 9], "area": area}
        for code, category, area in ((5, 7, 246), (6, 3, 54), (7, 9, 300))
    ]
    content = {
        "images": [{"id": 4, "file_name": "0.jpeg", "height": 20, "width": 30}],
        "annotations": [{"image_id": 4, "file_name": "truth_0.png", "segments_info": infos}],
    }
    scores = []
    for order in (CATEGORIES, CATEGORIES[::-1]):
        file = tmp_path / "truth.json"
        file.write_text(json.dumps({**content, "categories": order}))
        prefix = dict(img="", seg=str(tmp_path / "maps"))
        dataset = CocoSegments(ann_file=str(file), data_prefix=prefix, metainfo=META, test_mode=True)
        metric = CocoSegmentsMetric(classwise=True)
        metric.dataset_meta = dataset.metainfo
        sample = {"img_id": 4, "img_path": "0.jpeg", "ori_shape": (20, 30)}
        metric.process({}, [{**sample, "pred_panoptic_seg": {"sem_seg": torch.from_numpy(found.copy())[None]}}])
        scores.append(metric.evaluate(1))
        assert list(metric.categories.values())[2] == {"id": 9, "name": "water", "isthing": 0}
    plane, ship = 246 / 270, 30 / 54
    assert scores[0] == scores[1]
    assert scores[0]["coco_panoptic/PQ"] == pytest.approx(100 * (plane + ship + 1) / 3)
