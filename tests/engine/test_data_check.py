"""The look at data before the first step: faults of annotation files in COCO's format, and of configs that use them."""

import json
import os
import re
import time

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS
from mmengine.config import Config
from PIL import Image

from perception.datasets.checks import coco_facts
from perception.datasets.coco import CocoObjects, CocoSegments
from perception.datasets.coco_file import read_coco
from perception.datasets.dota_patches import DotaPatches
from perception.datasets.segmentation import SegmentationFolders
from perception.engine.data_check import check_data, check_labels, draw_sheets, examine
from perception.engine.errors import UserError
from perception.evaluation.coco import CocoObjectsMetric
from tests.datasets.coco_sets import CLASSES, write, write_maps
from tests.datasets.test_coco import panoptic, reorder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def config(train, val=None, classes=CLASSES, kind=CocoObjects, evaluator=None, heads=None, **dataset):
    """A config of two splits; `train` and `val` are annotation files beside their `images`."""

    def loader(file, **further):
        prefix = dict(img=str(file.parent / "images"), seg=str(file.parent / "maps"))
        if kind is not CocoSegments:
            del prefix["seg"]
        metainfo = dict(classes=classes)
        return dict(dataset=dict(type=kind, ann_file=str(file), data_prefix=prefix, metainfo=metainfo, **further))

    return Config(
        dict(
            model=heads if heads is not None else dict(bbox_head=dict(num_classes=len(classes))),
            train_dataloader=loader(train, filter_cfg=dict(filter_empty_gt=True), **dataset),
            val_dataloader=None if val is None else loader(val, test_mode=True),
            val_evaluator=evaluator,
        )
    )


def errors(cfg):
    report = examine(cfg, ("train", "val"))
    assert re.search(rf"\n{len(report.errors)} errors?, {len(report.warnings)} warnings?$", report.text())
    return report.errors


def warnings(cfg):
    report = examine(cfg, ("train", "val"))
    assert report.errors == []
    return report.warnings


def test_sound_data_have_statistics_and_no_faults(tmp_path):
    report = examine(config(write(tmp_path / "a"), write(tmp_path / "b", num_images=2)), ("train", "val"))
    assert report.errors == report.warnings == []
    text = report.text()
    assert "4 images, 0 of them without objects; 7 objects (7 annotations)" in text
    assert "images 40 x 30 to 40 x 30 pixels" in text
    assert "classes: cat 4, dog 2, bird 1" in text
    assert "objects 7 to 8 pixels" in text


def every(key, value):
    def change(data):
        for entry in data["annotations"]:
            entry[key] = value(entry[key]) if callable(value) else value

    return change


def first(key, value, where="annotations"):
    def change(data):
        data[where][0][key] = value

    return change


def without(key, where="images"):
    def change(data):
        for entry in data[where]:
            del entry[key]

    return change


def to_corners(data):
    for entry in data["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x + 14, y + 12, x + 14 + w, y + 12 + h]


def twice(where, number=1):
    def change(data):
        data[where][number] = {**data[where][number], "id": data[where][0]["id"]}

    return change


def add(where, **entry):
    def change(data):
        data[where].append({**data[where][0], **entry})

    return change


# Sentences that have to come, and the number of objects or images that they count.
FAULTS = {
    "no sizes": (without("width"), r"4 of 4 images have no width and height \(.*\): 1.png, 2.png, 3.png, 4.png"),
    "size as text": (first("width", "40", "images"), r"1 of 4 images have no width and height \(whole .*\): 1.png"),
    "size of zero": (first("height", 0, "images"), r"1 of 4 images have no width and height \(whole .*\): 1.png"),
    "another size": (first("width", 41, "images"), "1.png has 40 x 30 pixels, not 41 x 30"),
    "one id for all images": (twice("images"), "not unique: 2 of 4 images share 1 ids.*id 1 of 1.png, 2.png"),
    "one file as two images": (add("images", id=9), "1 files are listed as more than one image: 1.png"),
    "missing image": (first("file_name", "gone.png", "images"), "1 of 4 images are missing in .*: gone.png; put them"),
    "percent-encoded": (first("file_name", "%31.png", "images"), "percent-encoded.*'%31.png' is there as '1.png'"),
    "folder before the name": (first("file_name", "C:\\data\\1.png", "images"), "'C:/data/1.png' is there as '1.png'"),
    "absolute name": (first("file_name", "/home/me/x.png", "images"), "absolute paths, of another machine"),
    "case of the name": (first("file_name", "1.PNG", "images"), "differ by case: 1.png instead of 1.PNG"),
    "suffix of the name": (first("file_name", "1.jpg", "images"), "differ by suffix: 1.png instead of 1.jpg"),
    "name is no text": (first("file_name", 1, "images"), "1 of 4 images have a name that is no text"),
    "object of no image": (first("image_id", 77), "1 of 7 annotations are of images.*: image_id 77"),
    "image ids as text": (every("image_id", str), "7 of 7 annotations.*'3', '4'; ids are numbers in one place"),
    "object of no category": (first("category_id", 0), "1 of 7 .*: category_id 0; ids of its categories: 1, 2, 3"),
    "category ids as text": (every("category_id", str), "7 of 7 objects are of categories"),
    "category ids not unique": (twice("categories"), "category id 1 comes more than once"),
    "category names not unique": (add("categories", id=4), "category name cat comes more than once"),
    "boxes as text": (every("bbox", lambda box: [*map(str, box)]), "7 of 7 .* not four numbers.*without quotes"),
    "short box": (first("bbox", [1, 2, 3]), r"1 of 7 objects have a bbox that is not four numbers: object 1 \(1.png\)"),
    "empty box": (first("bbox", []), "1 of 7 objects have no bbox"),
    "no boxes": (without("bbox", "annotations"), "7 of 7 objects have no bbox"),
    "nested box": (first("bbox", [[1, 2], [3, 4]]), "1 of 7 objects have a bbox that is not four numbers"),
    "not a number": (first("bbox", [float("nan"), 2, 9, 6]), "1 of 7 boxes have numbers that are not finite"),
    "infinite": (first("bbox", [1, 2, float("inf"), 6]), "1 of 7 boxes have numbers that are not finite"),
    "corners": (to_corners, r"all would fit as \[x1, y1, x2, y2\]"),
    "shares of the size": (every("bbox", lambda box: [0.1, 0.2, 0.3, 0.4]), "all 7 boxes lie within 0 and 1"),
    "negative size": (first("bbox", [12, 9, -5, -5]), "1 of 7 boxes have a negative width or height"),
    "of larger images": (every("bbox", lambda box: [4 * v for v in box]), "boxes reach beyond their image.*resized"),
    "iscrowd as text": (every("iscrowd", "0"), "7 of 7 objects have an iscrowd other than 0 and 1"),
    "crowds alone": (every("iscrowd", 1), "none of the 7 objects can be trained on.*7 are crowds"),
    "area as text": (first("area", "54"), "1 of 7 objects have an area that is no number"),
    "no objects": (lambda data: data["annotations"].clear(), "the file has no objects"),
    "all boxes empty": (every("bbox", [3, 2, 0, 0]), "none of the 7 objects can be trained on.*7 have no box"),
    "flat polygon": (first("segmentation", [1, 2, 3, 4, 5, 6]), "1 of 7 objects have a segmentation that is neither"),
    "segmentation as text": (first("segmentation", "1 2 3"), "1 of 7 objects have a segmentation that is neither"),
    "sizes of run lengths": (first("segmentation", {"size": [40, 30], "counts": [1200]}), "1 of 7 .* run lengths"),
    "no images": (lambda data: (data["images"].clear(), data["annotations"].clear()), "lists no images"),
    "panoptic": (panoptic, "panoptic annotations.*this recipe needs annotations of objects"),
    "misspelt": (first("name", "catt", "categories"), r"it has no 'cat' \('catt'\?\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_errors(tmp_path, name):
    change, message = FAULTS[name]
    found = errors(config(write(tmp_path, change)))
    assert any(re.search(message, text) for text in found), found
    assert all(text.startswith(("train", "config")) for text in found)
    with pytest.raises(UserError):
        check_data(config(tmp_path / "labels.json"), ("train",))


def far_away(data):
    data["annotations"][0]["bbox"] = [100, 100, 9, 9]


REMARKS = {
    "outside": (far_away, r"1 of 7 boxes lie outside their image: object 1 \(1.png\)"),
    "partly outside": (first("bbox", [35, 2, 9, 6]), "1 of 7 boxes reach beyond their image"),
    "empty": (first("bbox", [5, 5, 0, 4]), "1 of 7 boxes are less than a pixel wide or high"),
    "copies": (add("annotations", id=99), "1 of 8 objects have image, category and box of another: object 8"),
    "two points": (
        first("segmentation", [[1, 2, 3, 4], [3, 2, 12, 2, 12, 8, 3, 8]]),
        "1 of 7 objects have polygons of fewer than three points",
    ),
    "nothing but two points": (first("segmentation", [[1, 2, 3, 4]]), "1 of 7 objects have no polygon of three points"),
    "crowds": (
        lambda data: [entry.update(iscrowd=1) for entry in data["annotations"][:3]],
        "3 of 7 objects are crowds .* leave out: .*want an iscrowd of 0",
    ),
    "odd polygon": (
        first("segmentation", [[1, 2, 3, 4, 5, 6, 7], [3, 2, 12, 2, 12, 8, 3, 8]]),
        "or of an odd number of coordinates",
    ),
    "polygon elsewhere": (first("segmentation", [[20, 20, 30, 20, 30, 29]]), "of another extent than their bbox"),
    "class without objects": (every("category_id", 1), "2 of 3 classes have no objects: dog, bird"),
}  # fmt: skip


@pytest.mark.parametrize("name", REMARKS)
def test_oddities_are_warnings(tmp_path, name, capsys):
    change, message = REMARKS[name]
    cfg = config(write(tmp_path, change))
    assert any(re.search(message, text) for text in warnings(cfg))
    check_data(cfg, ("train",))
    assert re.search(f"warning: train .*{message}", capsys.readouterr().err)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: [entry.pop(key) for entry in data["annotations"] for key in ("area", "iscrowd")],
        every("iscrowd", None),
        every("area", 0),
        without("id", "annotations"),
        every("id", 5),
        every("image_id", float),
        lambda data: data["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"}),
        first("segmentation", {"size": [30, 40], "counts": [95, 6, 1099]}),
        reorder,
    ],
)
def test_what_other_programs_write_is_fine(tmp_path, change):
    cfg = config(write(tmp_path, change))
    assert warnings(cfg) == []
    dataset = CocoObjects(**{key: value for key, value in cfg.train_dataloader.dataset.items() if key != "type"})
    assert [[entry["bbox_label"] for entry in info["instances"]] for info in dataset] == [[0, 1, 2], [0], [0, 1], [0]]


def test_a_file_of_another_kind_is_one_error(tmp_path):
    file = write(tmp_path)
    file.write_text(file.read_text()[:200])
    assert len(found := errors(config(file))) == 1
    assert "truncated" in found[0]
    with pytest.raises(UserError, match="truncated"):
        check_data(config(file), ("train",))


def test_turned_images(tmp_path):
    file = write(tmp_path)
    image = Image.new("RGB", (40, 30))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "images" / "1.png", exif=exif)
    (message,) = errors(config(file))
    assert "turned by their EXIF orientation" in message
    data = json.loads(file.read_text())
    data["images"][0].update(width=30, height=40)
    file.write_text(json.dumps(data))
    assert errors(config(file)) == []


def test_unreadable_images(tmp_path):
    file = write(tmp_path)
    (tmp_path / "images" / "2.png").write_bytes(b"")
    (tmp_path / "images" / "3.png").write_text("no image")
    (message,) = errors(config(file))
    assert "2 of 4 images cannot be read: 2.png (empty file), 3.png (not an image" in message


def test_masks_are_wanted(tmp_path):
    file = write(tmp_path, first("segmentation", []))
    assert errors(config(file)) == []
    (message,) = errors(config(file, pipeline=[dict(type="LoadAnnotations", with_mask=True)]))
    assert "1 of 7 objects have no segmentation, and the recipe trains masks" in message


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


def panoptic_config(tmp_path, change=lambda data: None):
    """Four images whose maps have a cat (code 5) of 50 pixels and a bird (code 6) of 500."""
    file = write(tmp_path, lambda data: (panoptic(data), change(data)))
    write_maps(tmp_path / "maps")
    cfg = config(file, kind=CocoSegments, heads=dict(panoptic_head=dict(num_things_classes=2, num_stuff_classes=1)))
    cfg.train_dataloader.dataset.metainfo.update(thing_classes=("cat", "dog"), stuff_classes=("bird",))
    return cfg


def test_panoptic_maps_are_looked_for(tmp_path):
    cfg = panoptic_config(tmp_path)
    assert errors(cfg) == []
    cfg.model.panoptic_head.num_stuff_classes = 2
    (tmp_path / "maps" / "map_4.png").unlink()
    Image.new("RGB", (30, 40)).save(tmp_path / "maps" / "map_2.png")
    found = errors(cfg)
    assert "1 of 4 label maps are missing in " in found[0]
    assert "map_4.png" in found[0]
    assert "1 of 3 label maps are of another size than the annotations say: map_2.png" in found[1]
    assert "1 of 3 label maps that were looked at lack segments of the annotations: map_2.png" in found[2]
    assert "num_stuff_classes is 2, but the data set has 1" in found[3]
    assert len(found) == 4


def test_panoptic_maps_have_the_segments_of_the_annotations(tmp_path):
    def change(data):
        data["annotations"][0]["segments_info"][0]["area"] = 60
        del data["annotations"][1]["segments_info"][0]

    found = errors(panoptic_config(tmp_path, change))
    assert "have segments that the annotations do not list: map_2.png" in found[0]
    assert "have segments of another area than the annotations state: map_1.png" in found[1]


def masks(folder, values, size=(40, 30)):
    """A data set of four images and masks with these values in bands."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(4):
        bands = np.array(values, np.uint8)[np.arange(30) * len(values) // 30]
        Image.fromarray(bands[:, None].repeat(40, 1)).resize(size, 0).save(folder / "masks" / f"{number}.png")
        Image.new("RGB", (40, 30)).save(folder / "images" / f"{number}.png")
    dataset = dict(
        type=SegmentationFolders, data_root=str(folder), data_prefix=dict(img_path="images", seg_map_path="masks"),
        img_suffix=".png", seg_map_suffix=".png", reduce_zero_label=False, metainfo=dict(classes=CLASSES),
    )  # fmt: skip
    return Config(dict(model=dict(decode_head=dict(num_classes=3)), train_dataloader=dict(dataset=dataset)))


def test_masks_are_looked_into(tmp_path):
    report = examine(masks(tmp_path / "a", (0, 0, 1, 255)), ("train",))
    assert report.errors == []
    assert "classes: cat 65.2%, dog 34.8%, bird 0.0%\n  76.7% of the pixels of 4 masks have a class" in report.text()
    assert [text.split("): ")[1] for text in report.warnings] == ["1 of 3 classes are in no mask: bird"]
    for values, size, message in (
        ((0, 1, 3), (40, 30), "4 of 4 masks .* has values that are no labels: 3"),
        ((0, 1, 2), (30, 30), "has 30 x 30 pixels, but its image 40 x 30"),
        ((0, 255), (40, 30), "hold only 0 and 255: no label but 0"),
    ):
        (found,) = errors(masks(tmp_path / f"b{len(list(tmp_path.iterdir()))}", values, size))
        assert re.search(message, found)


def test_rotated_boxes_lie_in_their_images(tmp_path):
    def objects(scale, number=4):
        for name in ("images", "labels"):
            (tmp_path / name).mkdir(exist_ok=True)
        for image in range(3):
            Image.new("RGB", (64, 64)).save(tmp_path / "images" / f"{image}.png")
            box = " ".join(str(scale * value) for value in (40, 40, 50, 40, 50, 45, 40, 45))
            inside = "1 1 9 1 9 9 1 9 dog 0\n" * number
            (tmp_path / "labels" / f"{image}.txt").write_text(f"{box} cat 0\n{inside}")
        dataset = dict(
            type=DotaPatches, data_root=str(tmp_path), ann_file="labels", data_prefix=dict(img_path="images"),
            metainfo=dict(classes=CLASSES),
        )  # fmt: skip
        return Config(dict(model={}, train_dataloader=dict(dataset=dataset)))

    assert errors(objects(1)) == []
    (found,) = errors(objects(2, number=1))
    assert "3 of 6 objects have their centre outside their image: 0.png, 1.png, 2.png" in found
    (found,) = errors(objects(0.01, number=0))
    assert "3 of 3 objects lie within 0 and 1; they are shares of the image's size" in found
    assert "3 of 15 objects have no width or no height" in " ".join(examine(objects(0), ("train",)).warnings)
    without = objects(1)
    for file in (tmp_path / "labels").iterdir():
        file.write_text("")
    (found,) = errors(without)
    assert "none of the 3 images has an object" in found
    (found,) = examine(objects(2, number=9), ("train",)).warnings
    assert "3 of 30 objects" in found
    cfg = objects(1)
    cfg.train_dataloader.dataset.metainfo.classes = ("cat", "Dog")
    (found,) = errors(cfg)
    assert "has objects of class 'dog' ('Dog'?); classes of the config: cat, Dog" in found


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


def test_several_errors_are_a_list(tmp_path):
    with pytest.raises(
        UserError, match=r"(?s)cannot be used as they are:\n  1\. train .*\n  2\. train .*\n  3\. config"
    ):
        check_data(config(write(tmp_path, lambda data: (without("width")(data), first("bbox", [])(data))),
                          heads=dict(num_classes=9)), ("train",))  # fmt: skip


def test_files_are_looked_into_once(tmp_path, monkeypatch):
    file = write(tmp_path, first("bbox", []))
    expected = errors(config(file))
    calls = []

    def counted(path):
        calls.append(path)
        return read_coco(path)

    monkeypatch.setattr(coco_facts, "read_coco", counted)
    assert errors(config(file)) == expected
    assert calls == []
    file.write_text(file.read_text() + " ")
    assert errors(config(file)) == expected
    assert calls == [file]
    (kept,) = coco_facts.cache_folder().iterdir()
    kept.write_text("{")
    assert errors(config(file)) == expected
    assert len(calls) == 2


def test_labels_of_a_checkpoint(tmp_path, capsys):
    cfg = Config(dict(test_dataloader=config(write(tmp_path)).train_dataloader))
    for fine in ({}, {"meta": {}}, {"meta": {"dataset_meta": {"classes": list(CLASSES)}}}):
        check_labels(cfg, fine, "x.pth")
    assert capsys.readouterr().err == ""
    check_labels(cfg, {"meta": {"dataset_meta": {"classes": ("cat", "dog", "cow")}}}, "x.pth")
    assert "x.pth was trained with other classes" in capsys.readouterr().err
    with pytest.raises(UserError, match="in another order: bird, dog, cat; the test data set has cat, dog, bird"):
        check_labels(cfg, {"meta": {"dataset_meta": {"CLASSES": CLASSES[::-1]}}}, "x.pth")


def test_only_the_first_process_looks(tmp_path, monkeypatch):
    cfg = config(write(tmp_path, first("bbox", [])))
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.setenv(name, "1")
        check_data(cfg, ("train",))
        monkeypatch.delenv(name)


def test_thousands_of_images_are_a_matter_of_seconds(tmp_path):
    def enlarge(data):
        image, entry = data["images"][0], data["annotations"][0]
        data["images"] = [{**image, "id": number, "file_name": f"{number}.png"} for number in range(20_000)]
        data["annotations"] = [{**entry, "id": number, "image_id": number % 20_000} for number in range(100_000)]

    file = write(tmp_path, enlarge)
    for number in (0, *range(5, 20_000)):
        os.link(tmp_path / "images" / "1.png", tmp_path / "images" / f"{number}.png")
    start = time.process_time()
    report = examine(config(file), ("train",))
    first_time, start = time.process_time() - start, time.process_time()
    again = examine(config(file), ("train",))
    assert report.text() == again.text()
    assert "20000 images" in report.text()
    assert first_time < 6
    assert time.process_time() - start < 2


def test_sheets_show_the_labels(tmp_path):
    cfg = config(write(tmp_path / "a"), write(tmp_path / "b", num_images=2))
    sheets = list(draw_sheets(cfg, ("train", "val"), tmp_path / "sheets"))
    assert [sheet.name for sheet in sheets] == ["train.jpg", "val.jpg"]
    with Image.open(sheets[0]) as sheet:
        pixels = np.asarray(sheet).astype(int)
    plain = tmp_path / "plain"
    cfg.train_dataloader.dataset.ann_file = str(write(plain, every("segmentation", [])))
    cfg.train_dataloader.dataset.data_prefix.img = str(plain / "images")
    (unmasked,) = draw_sheets(cfg, ("train",), tmp_path / "plain_sheets")
    with Image.open(unmasked) as sheet:
        others = np.asarray(sheet).astype(int)
    assert pixels.shape == others.shape == (384 + 22 + 28, 5 * 384, 3)
    # The cat of the second picture (grey 40, box 3, 2, 10, 6) is tinted; the border below it is not.
    inside = np.s_[40:60, 384 + 60 : 384 + 100]
    outside = np.s_[200:220, 384 + 200 : 384 + 260]
    assert np.abs(others[outside] - 40).max() < 8
    assert np.abs(pixels[outside] - 40).max() < 8
    assert np.abs(pixels[inside].mean((0, 1)) - others[inside].mean((0, 1))).max() > 20
