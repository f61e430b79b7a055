"""Pascal VOC's format: where boxes end, difficult objects, names; the metric; COCO's format and DIOR's layout."""

import json

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS
from mmengine.logging import MMLogger
from PIL import Image

import perception.datasets.coco  # noqa: F401  (registers CocoObjects)
from perception.datasets import dior
from perception.datasets.voc import VocObjects
from perception.datasets.voc_xml import box_of, read_voc
from perception.engine.errors import UserError
from perception.evaluation.voc import VocObjectsMetric

VOC_TO_COCO, PREPARE_DIOR = "dataset_converters/voc_to_coco", "dataset_converters/prepare_dior"


def xml(*objects, size=(10, 10)):
    """The text of a label file; an object is (name, xmin, ymin, xmax, ymax, further text)."""
    text = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    for name, x1, y1, x2, y2, *more in objects:
        text += f"<object><name>{name}</name>{''.join(more)}<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        text += f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
    return f"<annotation>{text}</annotation>"


def write(root, files, size=(10, 10), suffix=".jpg"):
    """A data set of one list."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / "Annotations" / f"{name}.xml").write_text(text)
        Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(root / "JPEGImages" / f"{name}{suffix}")
    (root / "ImageSets/Main/train.txt").write_text("".join(f"{name}\n" for name in files))
    return root


def opened(root, **options):
    return VocObjects(
        data_root=f"{root}/",
        ann_file="ImageSets/Main/train.txt",
        data_prefix=dict(sub_data_root="./"),
        metainfo=dict(classes=("ship", "storage tank")),
        pipeline=[],
        **options,
    )


def boxes(data, index=0):
    return [instance["bbox"] for instance in data.get_data_info(index)["instances"]]


@pytest.mark.parametrize(
    ("options", "corners", "expected"),
    [
        ({}, (1, 1, 10, 10), [0, 0, 10, 10]),  # as wide as the image
        ({}, (3, 4, 3, 4), [2, 3, 3, 4]),  # one pixel
        (dict(base=0), (0, 0, 9, 9), [0, 0, 10, 10]),
        (dict(base=0), (3, 4, 3, 4), [3, 4, 4, 5]),
        (dict(box_ends="pixel"), (1, 1, 10, 10), [0, 0, 9, 9]),  # as mmdet reads it
        ({}, (0, 2, 5, 6), [0, 1, 5, 6]),  # begins before the first pixel
    ],
)
def test_boxes_are_as_wide_as_their_objects(tmp_path, options, corners, expected):
    data = opened(write(tmp_path, {"a": xml(("ship", *corners))}), **options)
    assert boxes(data) == [expected]
    assert data.metainfo["box_ends"] == options.get("box_ends", "outer")


def test_sets_that_seem_to_count_from_0_are_remarked_on(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(MMLogger.get_current_instance(), "warning", said.append)
    root = write(tmp_path, {"a": xml(("ship", 0, 0, 9, 9), ("ship", 1, 1, 5, 5)), "b": xml(("ship", 2, 0, 9, 9))})
    opened(root)
    assert len(said) == 1
    assert "2 of 3 objects of" in said[0]
    assert "set base=0" in said[0]
    opened(root, base=0)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("more", "flag"),
    [("", 0), ("<difficult>1</difficult>", 1), ("<difficult>0</difficult>", 0), ("<difficult></difficult>", 0)],
)
def test_difficult_objects_are_ignored(tmp_path, more, flag):
    data = opened(write(tmp_path, {"a": xml(("ship", 1, 1, 5, 5, more))}))
    assert data.get_data_info(0)["instances"][0]["ignore_flag"] == flag


def test_small_objects_are_ignored_if_wanted(tmp_path):
    root = write(tmp_path, {"a": xml(("ship", 1, 1, 4, 9), ("ship", 1, 1, 5, 5))})
    flags = lambda data: [entry["ignore_flag"] for entry in data.get_data_info(0)["instances"]]  # noqa: E731
    assert flags(opened(root, filter_cfg=dict(bbox_min_size=5))) == [1, 0]
    assert flags(opened(root, filter_cfg=dict(bbox_min_size=5), test_mode=True)) == [0, 0]


def test_names_and_files_that_are_not_as_they_should_be(tmp_path):
    good = ("ship", 1, 1, 5, 5)
    for text, message in {
        xml(("storagetank", 1, 1, 5, 5)): r"does not know: storagetank \(storage tank\?\)\.",
        xml(("ship", 1, 1, 5, "x")): "has no number as ymax: 'x'",
        xml(("ship", 5, 1, 1, 5)): "ends before it begins: 5, 1, 1, 5",
        xml(("ship", 1, 1, 5, 5, "<difficult>yes</difficult>")): "'difficult' of an object 'ship' is 'yes'",
        "<annotation><object><name>ship</name></object></annotation>": "object 'ship' has no bndbox",
        "<annotation>": "are not XML",
    }.items():
        root = write(tmp_path, {"a": xml(good), "b": text})
        with pytest.raises(UserError, match=message):
            opened(root)
    root = write(tmp_path, {"a": xml(good, ("car", 1, 1, 5, 5)), "b": xml(good)})
    assert boxes(opened(root, subset=True)) == [[0, 0, 5, 5]]
    (root / "Annotations" / "b.xml").unlink()
    with pytest.raises(UserError, match=r"b\.xml cannot be read: No such file"):
        opened(root, subset=True)


def test_any_suffix_and_sizes_that_labels_leave_out(tmp_path):
    root = write(tmp_path, {"a 1": xml(("ship", 1, 1, 5, 5), size=None)}, size=(30, 20), suffix=".png")
    info = opened(root).get_data_info(0)
    assert info["img_path"].endswith("JPEGImages/a 1.png")
    assert (info["width"], info["height"]) == (30, 20)


def test_what_may_be_numbers(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(xml(("ship", "1.5", " 2 ", "7.25", "8.0"), size=(0, 0)))
    image = read_voc(path)
    assert image.size is None
    assert image.objects[0].corners == (1.5, 2, 7.25, 8)
    assert box_of(image.objects[0].corners, 1) == (0.5, 1, 7.25, 8)


# ------------------------------------------------------------------------------------------------------------ metric


def score(truth, ignored, found, box_ends="outer", **options):
    """AP50 of class 0 over one image."""
    metric = METRICS.build(dict(type=VocObjectsMetric, **options))
    metric.dataset_meta = dict(classes=("ship", "storage tank"), box_ends=box_ends)

    def instances(rows):
        rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
        return dict(bboxes=rows, labels=torch.zeros(len(rows), dtype=torch.long))

    predicted = dict(**instances(found), scores=torch.linspace(0.9, 0.5, len(found)))
    truths = dict(gt_instances=instances(truth), ignored_instances=instances(ignored))
    metric.process({}, [dict(**truths, pred_instances=predicted)])
    return metric.evaluate(1)


def test_difficult_objects_count_neither_way():
    one, other = [0, 0, 10, 10], [20, 20, 40, 40]
    assert score([one], [other], [one, other])["pascal_voc/AP50"] == 1
    assert score([one], [other], [one])["pascal_voc/AP50"] == 1
    assert score([one], [], [other, one])["pascal_voc/AP50"] == pytest.approx(0.5)
    assert score([one, other], [], [one])["pascal_voc/AP50"] == pytest.approx(0.5)


def test_a_pixel_more_where_boxes_end_at_their_last_pixel():
    """Overlaps 0.5 exactly: 1 x 2 of 2 x 2 pixels; with a pixel more each, 2 x 3 of 3 x 3."""
    truth, found = [0, 0, 2, 2], [0, 0, 1, 2]
    assert score([truth], [], [found], iou_thrs=0.6)["pascal_voc/mAP"] == 0
    assert score([truth], [], [found], "pixel", iou_thrs=0.6)["pascal_voc/mAP"] == 1


def test_the_truth_is_perfect(tmp_path):
    """Labels through the data set and the metric, both ways of reading."""
    root = write(tmp_path, {"a": xml(("ship", 1, 1, 1, 4), ("ship", 4, 4, 10, 10), ("ship", 7, 1, 9, 2))})
    for box_ends in ("outer", "pixel"):
        rows = boxes(opened(root, box_ends=box_ends))
        assert score(rows, [], rows, box_ends)["pascal_voc/AP50"] == 1


# ------------------------------------------------------------------------------------------------------------- tools


def test_one_file_of_cocos_format(run_tool, tmp_path):
    objects = ("ship", 1, 1, 10, 10), ("tank", 2, 3, 4, 5, "<difficult>1</difficult>")
    root = write(tmp_path, {"a": xml(*objects), "b": xml()})
    out = tmp_path / "new" / "labels.json"
    arguments = (root / "Annotations", root / "JPEGImages", "--list", root / "ImageSets/Main/train.txt", "--out", out)
    done = run_tool(VOC_TO_COCO, *arguments)
    assert done.code == 0, done.err
    assert "2 images, 2 objects (1 difficult), 2 classes; pixels are counted from 1" in done.out
    content = json.loads(out.read_text())
    assert [(entry["bbox"], entry["iscrowd"]) for entry in content["annotations"]] == [
        ([0, 0, 10, 10], 0),
        ([1, 2, 3, 3], 1),
    ]
    assert [entry["id"] for entry in content["annotations"]] == [1, 2]
    data = DATASETS.build(
        dict(
            type="CocoObjects", ann_file=str(out), data_prefix=dict(img=str(root / "JPEGImages")), pipeline=[],
            metainfo=dict(classes=("tank", "ship")),
        )
    )  # fmt: skip
    assert [instance["bbox_label"] for instance in data.get_data_info(0)["instances"]] == [1, 0]
    assert "exists" in run_tool(VOC_TO_COCO, *arguments).err

    (root / "Annotations" / "b.xml").write_text(xml(("ship", 0, 3, 9, 9)))
    done = run_tool(VOC_TO_COCO, *arguments, "--overwrite")
    assert "pixels are counted from 0" in done.out
    assert json.loads(out.read_text())["annotations"][0]["bbox"] == [1, 1, 10, 10]
    done = run_tool(VOC_TO_COCO, *arguments, "--overwrite", "--voc-base", 1)
    assert json.loads(out.read_text())["annotations"][2]["bbox"] == [0, 2, 9, 7]
    done = run_tool(VOC_TO_COCO, *arguments, "--overwrite", "--classes", "ship", "tanks")
    assert done.code == 1
    assert "'tank'" in done.err
    (root / "JPEGImages" / "b.jpg").unlink()
    assert "1 of 2 images are missing" in run_tool(VOC_TO_COCO, *arguments, "--overwrite").err


def published_dior(root):
    """Three images in the layout of the published archives."""
    labels = root / "Annotations" / "Horizontal Bounding Boxes"
    for folder in (labels, root / "ImageSets" / "Main", root / "JPEGImages-trainval", root / "JPEGImages-test"):
        folder.mkdir(parents=True)
    old = list(dior.RENAMED)
    texts = {
        "00001": xml(*((name, 1, 1, 9, 9) for name in old)),
        "00002": xml(("ship", 4, 1, 4, 9), ("vehicle", 2, 2, 8, 8), ("dam", 5, 5, 9, 3)),
        "11726": xml(("airplane", 1, 2, 3, 4)),
    }
    for name, text in texts.items():
        (labels / f"{name}.xml").write_text(text)
        folder = root / ("JPEGImages-test" if name == "11726" else "JPEGImages-trainval")
        Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(folder / f"{name}.jpg")
    for split, name in (("train", "00001"), ("val", "00002"), ("test", "11726")):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(f"{name}\n")
    return root


def test_dior_gets_its_layout_and_names(run_tool, tmp_path):
    source, out = published_dior(tmp_path / "DIOR"), tmp_path / "data" / "dior"
    done = run_tool(PREPARE_DIOR, source, "--out", out)
    assert done.code == 0, done.err
    assert "val: 1 images, 1 objects; 2 without width or height left out" in done.out
    assert sorted(path.name for path in (out / "JPEGImages").iterdir()) == ["00001.jpg", "00002.jpg", "11726.jpg"]
    names = [item.name for item in read_voc(out / "Annotations" / "00001.xml").objects]
    assert names == list(dior.RENAMED.values())
    assert [item.name for item in read_voc(out / "Annotations" / "00002.xml").objects] == ["vehicle"]
    assert len(dior.CLASSES) == 20
    assert set(names) < set(dior.CLASSES)
    assert len(list((source / "Annotations" / "Horizontal Bounding Boxes").iterdir())) == 3  # as it was
    assert "already complete" in run_tool(PREPARE_DIOR, source, "--out", out).out


def test_dior_with_faults(run_tool, tmp_path):
    source = published_dior(tmp_path / "DIOR")
    (source / "JPEGImages-test" / "11726.jpg").unlink()
    done = run_tool(PREPARE_DIOR, source, "--out", tmp_path / "out")
    assert done.code == 1
    assert "image 11726 of test.txt is left out: there is no such image" in done.err
    assert (tmp_path / "out/ImageSets/Main/test.txt").read_text() == ""
    labels = source / "Annotations" / "Horizontal Bounding Boxes" / "00001.xml"
    labels.write_text(xml(("zeppelin", 1, 1, 9, 9)))
    done = run_tool(PREPARE_DIOR, source, "--out", tmp_path / "other")
    assert "class 'zeppelin', which is none of DIOR's" in done.err
    assert not (tmp_path / "other").exists()
    assert "has no folder" in run_tool(PREPARE_DIOR, tmp_path / "out" / "JPEGImages", "--out", tmp_path / "x").err
