"""The look at data before the first step: configs that do not fit their data, other splits, or their checkpoint."""

import pytest
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS
from mmengine.config import Config
from PIL import Image

from perception.engine.data_check import check_labels, draw_sheets, examine
from perception.engine.errors import UserError
from perception.evaluation.coco import CocoObjectsMetric
from tests.datasets.coco_sets import CLASSES, write
from tests.datasets.test_coco import reorder
from tests.engine.coco_configs import config, errors, first, warnings

pytestmark = pytest.mark.usefixtures("own_cache")


def test_classes_of_splits_and_heads(tmp_path):
    file = write(tmp_path)
    (message,) = errors(config(file, heads=dict(bbox_head=dict(num_classes=80))))
    assert "model.bbox_head.num_classes is 80, but the data set has 3: cat, dog, bird" in message
    assert "--cfg-options model.bbox_head.num_classes=3" in message
    heads = dict(
        backbone=dict(num_classes=1000),
        rpn_head=dict(num_classes=1),
        roi_head=dict(bbox_head=[dict(num_classes=3), dict(num_classes=4)], mask_head=dict(num_classes=3)),
        decode_head=dict(num_classes=3, loss_cls=dict(class_weight=[1.0] * 5 + [0.1])),
    )
    found = errors(config(file, heads=heads))
    assert [text.split(",")[0] for text in found] == [
        "config: model.roi_head.bbox_head.1.num_classes is 4",
        "config: model.decode_head.loss_cls.class_weight has 6 weights",
    ]
    cfg = config(file, write(tmp_path / "val"))
    cfg.val_dataloader.dataset.metainfo.classes = ("cat", "bird", "dog")
    (message,) = errors(cfg)
    assert "train and val have different classes (metainfo.classes): cat, dog, bird; cat, bird, dog" in message


def test_one_class_without_its_comma(tmp_path):
    with pytest.raises(UserError, match="is the text 'cat', not a list"):
        examine(config(write(tmp_path), classes="cat"), ("train",))


def test_trained_and_evaluated_with_the_same_images(tmp_path):
    file = write(tmp_path)
    (message,) = warnings(config(file, file))
    assert "4 of 4 val images are trained on as well: " in message
    other = write(tmp_path / "val", num_images=9)
    (message,) = warnings(config(file, other))
    assert "train has 4 images and val 9; were the two exchanged?" in message


def test_the_evaluators_own_annotations(tmp_path):
    file, val = write(tmp_path / "train"), write(tmp_path / "val", reorder)
    copy = tmp_path / "copy.json"
    copy.write_bytes(val.read_bytes())
    for fine in (None, val, copy):
        evaluator = dict(type=CocoObjectsMetric, ann_file=fine and str(fine))
        assert errors(config(file, val, evaluator=evaluator)) == []
    other = write(tmp_path / "other", first("file_name", "x.png", "images"))
    for wrong, reason in ((other, "1 of 4 are not in it under their id, such as 1.png"), ("none.json", "No such file")):
        (message,) = errors(config(file, val, evaluator=dict(type=CocoObjectsMetric, ann_file=str(wrong))))
        assert reason in message
        assert "leave out" in message
    (message,) = errors(config(file, val, evaluator=[dict(type="CocoMetric", ann_file=str(val))]))
    assert "the evaluator, CocoMetric, takes labels from the order of the file (bird, dog, cat)" in message
    assert CocoMetric.__name__ in message


def test_stock_data_sets_need_the_order_of_the_file(tmp_path):
    assert errors(config(write(tmp_path / "a"), kind=CocoDataset)) == []
    (message,) = errors(config(write(tmp_path / "b", reorder), kind="CocoDataset"))
    assert "CocoDataset takes labels from the order of the file (bird, dog, cat), not of the classes" in message


def test_filters_that_leave_nothing(tmp_path):
    cfg = config(write(tmp_path))
    cfg.train_dataloader.dataset.filter_cfg.min_size = 32
    (message,) = errors(cfg)
    assert "no image is left to train on: 4 are smaller than 32 pixels (filter_cfg.min_size)" in message

    def enlarge(data):
        data["images"][0].update(width=400, height=300)

    file = write(tmp_path / "b", enlarge)
    Image.new("RGB", (400, 300)).save(tmp_path / "b" / "images" / "1.png")
    cfg = config(file)
    cfg.train_dataloader.dataset.filter_cfg.min_size = 32
    (message,) = warnings(cfg)
    assert "3 of 4 images are smaller than 32 pixels and are left out: 2.png, 3.png, 4.png" in message


def test_crowded_images_are_left_out_of_training(tmp_path):
    cfg = config(write(tmp_path))
    cfg.train_dataloader.dataset.filter_cfg.max_objects = 2
    (message,) = warnings(cfg)
    assert "1 of 4 images have more than 2 objects and are left out: 1.png; raise filter_cfg.max_objects" in message
    built = DATASETS.build({**cfg.train_dataloader.dataset, "pipeline": []})
    assert [built.get_data_info(k)["img_id"] for k in range(len(built))] == [2, 3, 4]
    cfg.train_dataloader.dataset.filter_cfg.max_objects = 0
    assert any("4 more than 0" in text for text in errors(cfg))
    cfg.train_dataloader.dataset.filter_cfg.max_objects = None
    assert warnings(cfg) == []


def test_a_subset_of_classes(tmp_path):
    file = write(tmp_path, reorder)
    assert errors(config(file, classes=("dog",), subset=True)) == []
    assert "4 images" in examine(config(file, classes=("dog",), subset=True), ("train",)).text()
    (message,) = errors(config(file, classes=("dog",)))
    assert "dataset.subset=True" in message


def test_wrapped_data_sets(tmp_path):
    cfg = config(write(tmp_path, first("file_name", "gone.png", "images")))
    one = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type="RepeatDataset", times=2, dataset=one)
    assert len(errors(cfg)) == 1
    cfg.train_dataloader.dataset = dict(type="ConcatDataset", datasets=[one, {**one, "subset": True}])
    assert len(errors(cfg)) == 2
    cfg = config(write(tmp_path / "a"), write(tmp_path / "b"))
    one = cfg.val_dataloader.dataset
    cfg.val_dataloader.dataset = dict(type="ConcatDataset", datasets=[one, {**one, "serialize_data": False}])
    (message,) = errors(cfg)
    assert "val joins 2 annotation files" in message
    assert [path.name for path in draw_sheets(cfg, ("val",), tmp_path)] == ["val.jpg", "val_2.jpg"]


def test_labels_of_a_checkpoint(tmp_path, capsys):
    cfg = Config(dict(test_dataloader=config(write(tmp_path)).train_dataloader))
    for fine in ({}, {"meta": {}}, {"meta": {"dataset_meta": {"classes": list(CLASSES)}}}):
        check_labels(cfg, fine, "x.pth")
    assert capsys.readouterr().err == ""
    check_labels(cfg, {"meta": {"dataset_meta": {"classes": ("cat", "dog", "cow")}}}, "x.pth")
    assert "x.pth was trained with other classes" in capsys.readouterr().err
    with pytest.raises(UserError, match="in another order: bird, dog, cat; the test data set has cat, dog, bird"):
        check_labels(cfg, {"meta": {"dataset_meta": {"CLASSES": CLASSES[::-1]}}}, "x.pth")
