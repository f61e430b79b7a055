"""The built-in shapes: exact, reproducible, readable by others' code, and all-or-nothing on disk."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO

from perception.datasets.synthetic import FAMILIES, load_family, outlines, shapes
from perception.datasets.synthetic.coco_writer import annotation_file, image_folder
from perception.datasets.synthetic.shapes import MIN_VISIBLE, MIN_VISIBLE_SIDE, SHAPE_CLASSES, Params

TOOL = Path(__file__).parents[2] / "tools" / "make_demo_data.py"
SMALL = Params(num_train=6, num_val=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The data set of the default parameters, and the seconds of a processor that it took."""
    root = tmp_path_factory.mktemp("shapes") / "data"
    start = time.process_time()
    shapes.write(root, Params())
    return root, time.process_time() - start


def annotations(root, split):
    return json.loads((root / annotation_file(split)).read_text())


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def command(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, str(TOOL), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


# ------------------------------------------------------------------------------------------------------ what is in it


@pytest.mark.parametrize("split", ["train", "val"])
def test_boxes_and_areas_are_those_of_disjoint_masks(data, split):
    content = annotations(data[0], split)
    images = {image["id"]: image for image in content["images"]}
    taken = {key: np.zeros((image["height"], image["width"]), bool) for key, image in images.items()}
    for item in content["annotations"]:
        mask = rle.decode(item["segmentation"]).astype(bool)
        assert mask.shape == taken[item["image_id"]].shape
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        assert item["bbox"] == box
        assert min(box[2:]) >= MIN_VISIBLE_SIDE
        assert item["area"] == mask.sum()
        assert item["iscrowd"] == 0
        assert not (mask & taken[item["image_id"]]).any()
        taken[item["image_id"]] |= mask


@pytest.mark.parametrize(("split", "number"), [("train", 160), ("val", 40)])
def test_contents(data, split, number):
    root, _ = data
    content = annotations(root, split)
    assert {"info", "licenses", "images", "annotations", "categories"} <= content.keys()
    assert [category["name"] for category in content["categories"]] == list(SHAPE_CLASSES)
    assert len(content["images"]) == number
    assert len({item["id"] for item in content["annotations"]}) == len(content["annotations"])
    for image in content["images"]:
        pixels = cv2.imread(str(root / image_folder(split) / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)
        assert 128 <= min(pixels.shape[:2]) <= max(pixels.shape[:2]) <= 256
    per_image = Counter(item["image_id"] for item in content["annotations"])
    assert len(per_image) == number
    assert max(per_image.values()) <= 8
    per_class = Counter(item["category_id"] for item in content["annotations"])
    assert min(per_class.values()) > 0.09 * len(content["annotations"])
    assert len(per_class) == len(SHAPE_CLASSES) >= 6
    sides = [max(item["bbox"][2:]) for item in content["annotations"]]
    assert max(sides) >= 8 * min(sides)


def test_objects_overlap_but_stay_visible():
    occluded = cut_off = 0
    for index in range(30):
        scene = shapes.scene_of(Params(), "train", index)
        _, masks = shapes.render(scene)
        for item, mask in zip(scene.objects, masks):
            stamp = outlines.rasterise(shapes.outline_of(item))
            picture, own = stamp.clip(scene.height, scene.width)
            full, inside = (stamp.coverage >= 0.5).sum(), (stamp.coverage[own] >= 0.5).sum()
            assert mask.sum() >= MIN_VISIBLE * full
            assert not np.delete(mask, picture[0], axis=0).any()
            occluded += mask.sum() < inside
            cut_off += inside < full
    assert occluded > 20
    assert cut_off > 5


def test_every_class_is_drawn_as_its_outline():
    """Areas relative to the square over the box's longer side, from geometry."""
    item = shapes.scene_of(Params(), "train", 0).objects[0]
    item = replace(item, centre=(60.0, 60.0), size=80.0, angle=0.0, proportion=0.5)
    arm, hole, notch = 0.32, 0.535, 0.42
    tips = outlines.regular_polygon(5)
    star_box = (tips[:, 0].max() - tips[:, 0].min()) ** 2
    expected = {
        "circle": np.pi / 4,
        "square": 0.5,  # stands on its corner at angle 0
        "triangle": np.sqrt(3) / 4,
        "star": 5 * notch * np.sin(np.pi / 5) / star_box,
        "cross": 2 * arm - arm**2,
        "ring": np.pi / 4 * (1 - hole**2),
    }
    assert expected.keys() == set(SHAPE_CLASSES)
    for shape, share in expected.items():
        coverage = outlines.rasterise(shapes.outline_of(replace(item, shape=shape))).coverage
        assert coverage.sum() / 80**2 == pytest.approx(share, rel=0.02), shape


def test_objects_differ_from_what_they_hide_and_nothing_else_changes():
    for index in range(12):
        scene = shapes.scene_of(Params(), "val", index)
        image, masks = shapes.render(scene)
        empty, _ = shapes.render(replace(scene, objects=()))
        difference = np.abs(image.astype(int) - empty).max(axis=-1)
        for mask in masks:
            assert np.median(difference[mask]) > 25
            assert (difference[mask] > 8).mean() > 0.9
        # Beyond its shadow an object leaves no trace.
        reach = np.ones((2 * 40 + 1,) * 2, np.uint8)
        assert not difference[cv2.dilate(masks.any(axis=0).astype(np.uint8), reach) == 0].any()


def test_colour_says_nothing_about_the_class():
    hues = {name: [] for name in SHAPE_CLASSES}
    for index in range(100):
        for item in shapes.scene_of(Params(), "train", index).objects:
            hues[item.shape].append(cv2.cvtColor(np.float32([[item.colour]]), cv2.COLOR_RGB2HSV)[0, 0, 0])
    everything = np.concatenate(list(hues.values()))
    sextants = np.histogram(everything, 6, (0, 360))[0] / len(everything)
    for values in hues.values():
        assert np.abs(np.histogram(values, 6, (0, 360))[0] / len(values) - sextants).max() < 0.15


def test_takes_a_few_seconds(data):
    # About 2.5 s on one idle core; the bound leaves room for a busy machine, where caches are shared.
    assert data[1] < 10


# -------------------------------------------------------------------------------------------------------- other readers


def test_pycocotools_reads_it(data):
    coco = COCO(str(data[0] / "annotations" / "instances_val.json"))
    assert len(coco.getImgIds()) == 40
    item = coco.loadAnns(coco.getAnnIds(imgIds=coco.getImgIds()[:1]))[0]
    assert coco.annToMask(item).sum() == item["area"]


def test_mmdet_reads_it(data):
    from mmcv.transforms import LoadImageFromFile
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs

    dataset = CocoDataset(
        data_root=str(data[0]),
        ann_file="annotations/instances_train.json",
        data_prefix={"img": "images/train/"},
        metainfo=shapes.METAINFO,
        filter_cfg={"filter_empty_gt": True, "min_size": 32},
        pipeline=[
            {"type": LoadImageFromFile},
            {"type": LoadAnnotations, "with_bbox": True, "with_mask": True},
            {"type": PackDetInputs},
        ],
    )
    assert dataset.metainfo["classes"] == SHAPE_CLASSES
    assert len(dataset) == 160
    for index in (0, 7):
        sample = dataset[index]["data_samples"]
        scene = shapes.scene_of(Params(), "train", index)
        _, masks = shapes.render(scene)
        assert sample.gt_instances.labels.tolist() == [SHAPE_CLASSES.index(item.shape) for item in scene.objects]
        np.testing.assert_array_equal(sample.gt_instances.masks.to_ndarray(), masks)
        np.testing.assert_array_equal(
            sample.gt_instances.bboxes.tensor.numpy(), sample.gt_instances.masks.get_bboxes("hbox").tensor.numpy()
        )


# ------------------------------------------------------------------------------------------------------ reproducibility


def test_same_seed_same_files_other_seed_other_files(tmp_path):
    for name, params in {"a": SMALL, "b": SMALL, "c": replace(SMALL, seed=1)}.items():
        shapes.write(tmp_path / name, params)
    first, second, other = (files(tmp_path / name) for name in "abc")
    assert first == second
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)
    assert first["images/train/000000.jpg"] != first["images/val/000000.jpg"]


def test_an_image_does_not_depend_on_how_many_there_are(tmp_path):
    shapes.write(tmp_path / "few", replace(SMALL, num_train=2))
    shapes.write(tmp_path / "more", SMALL)
    few, more = files(tmp_path / "few"), files(tmp_path / "more")
    for name in few.keys() - {"dataset.json", "annotations/instances_train.json"}:
        assert few[name] == more[name], name
    few, more = annotations(tmp_path / "few", "train"), annotations(tmp_path / "more", "train")
    for key in ("images", "annotations"):
        assert few[key] == more[key][: len(few[key])]


# ---------------------------------------------------------------------------------------------------- all or nothing


def test_a_complete_set_is_left_and_a_different_one_refused(tmp_path):
    out = tmp_path / "data"
    assert shapes.write(out, SMALL).created
    before = files(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = shapes.write(out, SMALL)
    assert not again.created
    assert again.counts["train"]["images"] == 6
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times

    other = replace(SMALL, seed=3)
    with pytest.raises(FileExistsError, match="seed 0, not 3"):
        shapes.write(out, other)
    assert files(out) == before
    assert shapes.write(out, other, overwrite=True).created
    assert files(out) != before
    assert list(tmp_path.iterdir()) == [out]


def test_lost_files_are_noticed(tmp_path):
    out = tmp_path / "data"
    shapes.write(out, SMALL)
    before = files(out)
    (out / "images" / "val" / "000001.jpg").unlink()
    with pytest.raises(FileExistsError, match="lacks 1 of its files"):
        shapes.write(out, SMALL)
    assert shapes.write(out, SMALL, overwrite=True).created
    assert files(out) == before


def test_foreign_folders_are_never_replaced(tmp_path):
    out = tmp_path / "data"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="not a generated data set"):
        shapes.write(out, SMALL, overwrite=True)
    assert (out / "thesis.txt").read_text() == "precious"
    (out / "thesis.txt").unlink()
    assert shapes.write(out, SMALL).created  # an empty folder is no obstacle


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_generation_leaves_nothing(tmp_path, error):
    def stop(done, total):
        if done == 3:
            raise error

    out = tmp_path / "data"
    with pytest.raises((KeyboardInterrupt, OSError)):
        shapes.write(out, SMALL, on_progress=stop)
    assert not list(tmp_path.iterdir())

    shapes.write(out, SMALL)
    before = files(out)
    with pytest.raises((KeyboardInterrupt, OSError)):
        shapes.write(out, replace(SMALL, seed=1), overwrite=True, on_progress=stop)
    assert files(out) == before


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_generation_is_cleaned_up(tmp_path, kill):
    out = tmp_path / "data"
    process = command("shapes", "--out", out, "--num-train", 100_000)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("*/images/train/*")) and not list(tmp_path.glob(".*/images/train/*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(kill)
    process.communicate()
    assert process.returncode not in (0, None)
    assert not out.exists()
    if kill == signal.SIGTERM:
        assert not list(tmp_path.iterdir())
    shapes.write(out, SMALL)
    assert list(tmp_path.iterdir()) == [out]


def test_two_processes_at_once_agree(tmp_path):
    """Neither takes the other's unfinished files for abandoned ones."""
    out = tmp_path / "data"
    nested = []

    def other_process(done, total):
        if not nested:
            nested.append(command("shapes", "--out", out, "--num-train", 6, "--num-val", 2).communicate())

    summary = shapes.write(out, SMALL, on_progress=other_process)
    assert nested[0][0].startswith("made")
    assert not summary.created
    assert list(tmp_path.iterdir()) == [out]


# --------------------------------------------------------------------------------------------------------- command line


def test_command_line_makes_the_same_files(tmp_path):
    arguments = ["shapes", "--num-train", "4", "--num-val", "2", "--seed", "7", "--min-size", "96", "--max-size", "100"]
    process = command(*arguments, "--out", tmp_path / "tool")
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "4 images" in output
    shapes.write(tmp_path / "library", Params(num_train=4, num_val=2, seed=7, min_size=96, max_size=100))
    assert files(tmp_path / "tool") == files(tmp_path / "library")
    sizes = annotations(tmp_path / "tool", "train")["images"]
    assert all(96 <= image[side] <= 100 for image in sizes for side in ("height", "width"))

    again, _ = command(*arguments, "--out", tmp_path / "tool").communicate()
    assert again.startswith("already complete")


def test_command_line_explains_itself():
    for arguments in ([], ["shapes"]):
        output, _ = command(*arguments, "--help").communicate()
        assert "example:\n  python tools/make_demo_data.py shapes --out data/demo/shapes" in output
    assert "shortest image side in pixels (default: 128)" in output


def test_command_line_refuses_bad_input_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    cases = {
        "num_train must be at least 1, not 0": ["shapes", "--out", tmp_path / "a", "--num-train", 0],
        "must not be below min_size (300)": ["shapes", "--out", tmp_path / "b", "--min-size", 300],
        "file is a file, so": ["shapes", "--out", tmp_path / "file" / "c"],
        "invalid int value: 'many'": ["shapes", "--out", tmp_path / "d", "--num-val", "many"],
        "invalid choice: 'pentagons'": ["pentagons"],
    }
    for message, process in {text: command(*arguments) for text, arguments in cases.items()}.items():
        output, errors = process.communicate()
        assert process.returncode not in (0, None)
        assert message in errors
        assert "Traceback" not in errors
        assert not output
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        shapes.write(tmp_path / "data", SMALL)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_follows_the_pattern(name):
    family = load_family(name)
    assert family.EXAMPLE.startswith(f"python tools/make_demo_data.py {name}")
    assert all(option.metadata["help"] for option in family.Params.__dataclass_fields__.values())
    assert callable(family.write)
    family.Params()


def test_unknown_family():
    with pytest.raises(ValueError, match="'pentagons'; there are: shapes"):
        load_family("pentagons")


def test_tiny_images_still_work(tmp_path):
    summary = shapes.write(tmp_path / "data", Params(num_train=6, num_val=1, min_size=64, max_size=64))
    assert summary.counts["train"]["instances"] >= 6
