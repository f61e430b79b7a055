"""Labels of COCO-format data sets go by name, and files are completed or refused."""

import json

import pytest

from perception.datasets.class_names import Difference, near_miss
from perception.datasets.coco import CocoObjects, CocoSegments
from perception.datasets.coco_file import read_coco
from perception.engine.errors import UserError
from tests.datasets.coco_sets import CLASSES, write


def load(file, classes=CLASSES, **kwargs):
    return CocoObjects(
        ann_file=str(file), data_prefix=dict(img=str(file.parent / "images")), metainfo=dict(classes=classes), **kwargs
    )


def labels(dataset):
    return [[instance["bbox_label"] for instance in entry["instances"]] for entry in dataset]


def reorder(data):
    data["categories"].reverse()


def renumber(data):
    ids = {1: 90, 2: 0, 3: 7}
    for entry in data["annotations"]:
        entry["category_id"] = ids[entry["category_id"]]
    data["categories"] = [{"id": ids[entry["id"]], "name": entry["name"]} for entry in data["categories"]]


@pytest.mark.parametrize("change", [None, reorder, renumber])
def test_labels_follow_names(tmp_path, change):
    file = write(tmp_path, change)
    assert labels(load(file)) == [[0, 1, 2], [0], [0, 1], [0]]
    assert labels(load(file, ("bird", "cat", "dog"))) == [[1, 2, 0], [1], [1, 2], [1]]


def test_subset_and_absent_are_explicit(tmp_path):
    file = write(tmp_path, reorder)
    with pytest.raises(UserError, match=r"its 'bird' is no class.*dataset\.subset=True"):
        load(file, ("dog", "cat"))
    assert labels(load(file, ("dog", "cat"), subset=True)) == [[1, 0], [1], [1, 0], [1]]
    with pytest.raises(UserError, match=r"it has no 'cow'.*dataset\.absent=\['cow'"):
        load(file, ("cow", *CLASSES))
    assert labels(load(file, ("cow", *CLASSES), absent=["cow"])) == [[1, 2, 3], [1], [1, 2], [1]]
    with pytest.raises(UserError, match="'absent' of the data set names horse"):
        load(file, CLASSES, absent=["horse"])


def _rename(old, new):
    def change(data):
        for entry in data["categories"]:
            if entry["name"] == old:
                entry["name"] = new

    return change


@pytest.mark.parametrize("name", ["Dog", "dog ", "dgo", "DOG", "dogs"])
def test_near_misses_are_named(tmp_path, name):
    file = write(tmp_path, _rename("dog", name))
    with pytest.raises(UserError) as caught:
        load(file)
    text = str(caught.value)
    assert f"it has no 'dog' ({name!r}?)" in text
    assert "cat, dog, bird" in text
    assert f"cat, {name if name == name.strip() else repr(name)}, bird" in text


def test_near_miss_of_other_words():
    assert near_miss("traffic light", ["traffic_light", "stop sign"]) == "traffic_light"
    assert near_miss("cat", ["aeroplane", "bus"]) is None
    assert Difference.between(("a", "b"), ("b", "a")) == Difference((), ())


def test_a_root_without_objects_is_no_category(tmp_path):
    def change(data):
        for entry in data["categories"]:
            entry["supercategory"] = "animals"
        data["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})

    assert labels(load(write(tmp_path, change)))[0] == [0, 1, 2]


@pytest.mark.parametrize("key", ["id", "name"])
def test_ambiguous_categories(tmp_path, key):
    def change(data):
        data["categories"][2][key] = data["categories"][0][key]

    with pytest.raises(UserError, match=f"lists category {key} .* more than once"):
        load(write(tmp_path, change))


def test_area_and_iscrowd_are_completed(tmp_path):
    def change(data):
        for entry in data["annotations"]:
            del entry["area"], entry["iscrowd"]
        data["annotations"][0]["segmentation"] = [[0, 0, 6, 0, 6, 6]]
        data["annotations"][1]["segmentation"] = []
        data["annotations"][2]["segmentation"] = {"size": [30, 40], "counts": [0, 17, 30 * 40 - 17]}

    dataset = load(write(tmp_path, change))
    assert labels(dataset)[0] == [0, 1, 2]
    index = dataset.open(dataset.ann_file)
    assert index.anns[1]["area"] == pytest.approx(18, abs=4)
    assert index.anns[2]["area"] == 9 * 6
    assert index.anns[3]["area"] == 17
    assert all(entry["iscrowd"] == 0 for entry in index.anns.values())


def test_backslashes_are_slashes(tmp_path):
    def change(data):
        data["images"][0]["file_name"] = "a\\b\\1.png"

    assert load(write(tmp_path, change))[0]["img_path"].endswith("images/a/b/1.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ('{"images": [{"id": 1, "file_na', "truncated"),
        ("[]", "a list of 0 entries"),
        ('[{"image_id": 1, "score": 0.5, "bbox": [1, 2, 3, 4], "category_id": 1}]', "a list of detections"),
        ('{"version": "5.0.1", "shapes": [], "imagePath": "a.jpg", "imageData": null}', "labelme2coco"),
        ('{"images": [], "annotations": []}', "has no list categories"),
        ("<annotations></annotations>", "it is XML"),
        ('{"a.jpg123": {"filename": "a.jpg", "regions": []}}', "VGG Image Annotator"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "1 of 1 images lack file_name"),
        ("0 0.5 0.5 0.2 0.2\n", "goes on after its end, as labels in YOLO's format"),
        (
            '{"images": [], "annotations": [{"image_id": 1, "category_id": [2]}], "categories": []}',
            "category_id has to be one value",
        ),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": ["a"]}]}', "name has to be one value"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    file = tmp_path / "labels.json"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_coco(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("encoding", ["latin1", "utf-16"])
def test_other_encodings_are_refused(tmp_path, encoding):
    file = tmp_path / "labels.json"
    file.write_bytes('{"info": "\u00e9", "images": []}'.encode(encoding))
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_coco(file)


def test_class_named_by_a_number(tmp_path):
    file = write(tmp_path, _rename("dog", 5))
    with pytest.raises(UserError, match=r"it has no 'dog'.*5"):
        load(file)


def test_unusual_but_fine(tmp_path):
    file = write(tmp_path)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(read_coco(file)["images"]) == 4
    with pytest.raises(UserError, match="is a folder"):
        read_coco(tmp_path)
    with pytest.raises(UserError, match="No such file"):
        read_coco(tmp_path / "none.json")


def _size_missing(data):
    del data["images"][1]["height"]


def _text_for_numbers(data):
    data["annotations"][0]["bbox"] = ["3", "2", "9", "6"]


def _short_box(data):
    data["annotations"][0]["bbox"] = [3, 2, 9]


@pytest.mark.parametrize("change", [_size_missing, _text_for_numbers, _short_box])
def test_broken_entries_are_a_sentence(tmp_path, change):
    with pytest.raises(UserError, match=r"labels\.json, image '[12]\.png' \(id [12]\): .*check_data"):
        load(write(tmp_path, change))


def test_one_name_instead_of_a_list(tmp_path):
    with pytest.raises(UserError, match="is the text 'cat', not a list"):
        load(write(tmp_path), "cat")


def panoptic(data):
    data["annotations"] = [
        {
            "image_id": image["id"],
            "file_name": f"map_{image['id']}.png",
            "segments_info": [
                {"id": 5, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 50},
                {"id": 6, "category_id": 3, "bbox": [0, 9, 40, 20], "area": 500},
            ],
        }
        for image in data["images"]
    ]
    for entry in data["categories"]:
        entry["isthing"] = int(entry["name"] != "bird")


def load_segments(file, things=("dog", "cat"), stuff=("bird",), **kwargs):
    metainfo = dict(classes=(*things, *stuff), thing_classes=things, stuff_classes=stuff)
    prefix = dict(img=str(file.parent / "images"), seg=str(file.parent / "maps"))
    return CocoSegments(ann_file=str(file), data_prefix=prefix, metainfo=metainfo, **kwargs)


def test_panoptic_labels_follow_names(tmp_path):
    dataset = load_segments(write(tmp_path, lambda data: (reorder(data), panoptic(data))), test_mode=True)
    assert [segment["category"] for segment in dataset[0]["segments_info"]] == [1, 2]
    assert dataset[0]["seg_map_path"] == str(tmp_path / "maps" / "map_1.png")
    assert dataset.metainfo["ground_truth"] == dict(
        ann_file=str(tmp_path / "labels.json"), subset=False, absent=(), seg_prefix=str(tmp_path / "maps")
    )
    with pytest.raises(UserError, match="disagree on what is a thing: bird"):
        load_segments(tmp_path / "labels.json", things=("cat", "dog", "bird"), stuff=())
    with pytest.raises(UserError, match="here annotations of objects"):
        load(tmp_path / "labels.json")
    with pytest.raises(UserError, match="here panoptic annotations"):
        load_segments(write(tmp_path / "objects"))


def test_only_test_data_tell_where_they_are(tmp_path):
    file = write(tmp_path)
    assert "ground_truth" not in load(file).metainfo
    assert load(file, test_mode=True, subset=True).metainfo["ground_truth"]["subset"] is True
    assert json.dumps(load(file, test_mode=True).metainfo["ground_truth"])
