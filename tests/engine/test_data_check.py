"""The look at data before the first step: faults of annotation files in COCO's format, and how it goes about them."""

import json
import os
import re
import time

import numpy as np
import pytest
from PIL import Image

from perception.datasets.checks import coco_facts
from perception.datasets.coco import CocoObjects
from perception.datasets.coco_file import read_coco
from perception.engine.data_check import check_data, draw_sheets, examine
from perception.engine.errors import UserError
from tests.datasets.coco_sets import write
from tests.datasets.test_coco import panoptic, reorder
from tests.engine.coco_configs import add, config, errors, every, first, to_corners, twice, warnings, without

pytestmark = pytest.mark.usefixtures("own_cache")


def test_sound_data_have_statistics_and_no_faults(tmp_path):
    report = examine(config(write(tmp_path / "a"), write(tmp_path / "b", num_images=2)), ("train", "val"))
    assert report.errors == report.warnings == []
    text = report.text()
    assert "4 images, 0 of them without objects; 7 objects (7 annotations)" in text
    assert "images 40 x 30 to 40 x 30 pixels" in text
    assert "classes: cat 4, dog 2, bird 1" in text
    assert "objects 7 to 8 pixels" in text


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
