"""DOTA patches: order, classes, and what is said about files of another kind."""

import cv2
import numpy as np
import pytest

from perception.datasets.dota import read_labels
from perception.datasets.dota_patches import DotaPatches, DotaV15Patches
from perception.engine.errors import UserError


def patches(folder, lines, kind=DotaPatches, **kwargs):
    (folder / "images").mkdir()
    (folder / "annfiles").mkdir()
    for name, line in lines.items():
        cv2.imwrite(str(folder / "images" / f"{name}.png"), np.zeros((8, 8, 3), np.uint8))
        (folder / "annfiles" / f"{name}.txt").write_text(line)
    paths = dict(data_root=str(folder), ann_file="annfiles/", data_prefix=dict(img_path="images/"))
    return kind(**paths, pipeline=[], **kwargs)


def test_patches_come_in_the_order_of_their_names(tmp_path):
    line = "1 2 7 2 7 5 1 5 {} {}\n"
    names = ["P2__1024__0___0", "P10__1024__0___0", "P2__1024__824___0", "P1__1024__0___0"]
    lines = {name: line.format("ship", 0) + line.format("plane", 1) for name in names}
    found = patches(tmp_path, {**lines, "P0__1024__0___0": ""}, filter_cfg=dict(filter_empty_gt=True), diff_thr=0)
    assert [found.get_data_info(i)["img_id"] for i in range(len(found))] == sorted(names)
    first, second = found.get_data_info(0)["instances"]
    assert first == dict(bbox=[1, 2, 7, 2, 7, 5, 1, 5], bbox_label=6, ignore_flag=0)
    assert (second["bbox_label"], second["ignore_flag"]) == (0, 1)


def test_whole_images_and_images_without_labels(tmp_path):
    text = "imagesource:GoogleEarth\ngsd:0.1\n1 2 7 2 7 5 1 5 container-crane 0\n"
    found = patches(tmp_path, {"P1": text, "P0": text}, DotaV15Patches)
    assert found.get_data_info(0)["instances"][0]["bbox_label"] == 15
    bare = DotaPatches(data_root=str(tmp_path), data_prefix=dict(img_path="images/"), test_mode=True, pipeline=[])
    assert [bare.get_data_info(i)["img_id"] for i in range(len(bare))] == ["P0", "P1"]


def test_fields_between_commas(tmp_path):
    path = tmp_path / "P0.txt"
    path.write_text(
        "1.5,2,7,2,7,5,1,5,ship,1\n1, 2, 7, 2, 7, 5, 1, 5, ground-track-field, 0\n1,2,7,2,7,5,1,5,plane\n"
        "1 2 7 2 7 5 1 5 ship 2\n1,2,7,2,7,5,1,5,small vehicle,0,\n"
    )
    found = read_labels(path)
    assert found.corners[0].tolist() == [[1.5, 2], [7, 2], [7, 5], [1, 5]]
    assert (found.corners[1:] == [[1, 2], [7, 2], [7, 5], [1, 5]]).all()
    assert found.classes == ("ship", "ground-track-field", "plane", "ship", "small vehicle")
    assert found.difficulty == (1, 0, 0, 2, 0)
    for line in (
        "1,5 2,5 7,5 2,5 7,5 5,5 1,5 5,5 ship 0",
        "1,2,7,2,7,5,1,5",
        "1,2,7,2,7,5,1,5,,0",
        "1,2,7,2,7,5,1 5,ship,0",
    ):
        path.write_text(f"1 2 7 2 7 5 1 5 ship 0\n{line}\n")
        with pytest.raises(ValueError, match="line 2: expected 8 coordinates"):
            read_labels(path)


@pytest.mark.parametrize(
    ("options", "flags"),
    [({}, [0, 0, 0]), ({"test_mode": True}, [0, 1, 1]), ({"test_mode": True, "diff_thr": 1}, [0, 0, 1])],
)
def test_difficult_objects_are_ignored_in_test_mode_only(tmp_path, options, flags):
    text = "".join(f"1 2 7 2 7 5 1 5 ship {difficulty}\n" for difficulty in range(3))
    found = patches(tmp_path, {"P0": text}, **options)
    assert [item["ignore_flag"] for item in found.get_data_info(0)["instances"]] == flags


def test_what_cannot_be_read_says_so(tmp_path):
    for number, (text, message) in enumerate(
        {
            "1 2 7 2 7 5 1 5 submarine 0\n": "'?submarine'?.*; classes of the config: plane, baseball-diamond",
            "a b c d e f g h ship 0\n": "line 1: expected 8 coordinates",
        }.items()
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(UserError, match=message):
            patches(folder, {"P0": text})
    empty = dict(data_root=str(tmp_path), data_prefix=dict(img_path=""), pipeline=[])
    with pytest.raises(UserError, match=r"holds no \.txt files with labels"):
        DotaPatches(ann_file="0/images/", **empty)
    with pytest.raises(UserError, match="holds no images"):
        DotaPatches(**empty)
    with pytest.raises(UserError, match=r"holds no \.bmp images"):
        DotaPatches(img_suffix="bmp", **empty)


def test_images_of_any_suffix(tmp_path):
    patches(tmp_path, dict.fromkeys(("P0", "P1", "P2"), "1 2 7 2 7 5 1 5 ship 0\n"))
    (tmp_path / "images" / "P1.png").rename(tmp_path / "images" / "P1.JPG")
    (tmp_path / "images" / "P2.png").rename(tmp_path / "images" / "P2.tif")
    paths = dict(data_root=str(tmp_path), data_prefix=dict(img_path="images/"), pipeline=[])
    for ann_file in ("annfiles/", ""):
        found = DotaPatches(ann_file=ann_file, **paths)
        infos = [found.get_data_info(i) for i in range(3)]
        assert [info["file_name"] for info in infos] == ["P0.png", "P1.JPG", "P2.tif"]
        assert [info["img_id"] for info in infos] == ["P0", "P1", "P2"]
        assert all(cv2.imread(info["img_path"]).shape == (8, 8, 3) for info in infos)
    with pytest.raises(UserError, match=r"2 of 3 label files in .* have no image in .*: P1\.txt, P2\.txt"):
        DotaPatches(ann_file="annfiles/", img_suffix="png", **paths)
    cv2.imwrite(str(tmp_path / "images" / "P0.jpg"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r"P0\.jpg and P0\.png have the same name"):
        DotaPatches(ann_file="annfiles/", **paths)


def test_labels_without_image_and_images_without_labels(tmp_path, caplog):
    patches(tmp_path, {"P0": "1 2 7 2 7 5 1 5 ship 0\n", "P1": ""})
    paths = dict(data_root=str(tmp_path), ann_file="annfiles/", data_prefix=dict(img_path="images/"), pipeline=[])
    (tmp_path / "annfiles" / "zz.txt").touch()
    with pytest.raises(UserError, match=r"1 of 3 label files in .* have no image in .*: zz\.txt; add the images"):
        DotaPatches(**paths)
    (tmp_path / "annfiles" / "zz.txt").unlink()
    (tmp_path / "annfiles" / "P1.txt").unlink()
    assert len(DotaPatches(**paths)) == 1


def test_labels_without_an_object_are_nothing_to_train_on(tmp_path):
    with pytest.raises(UserError, match=r"none of the 2 label files in .*annfiles.* has an object"):
        patches(tmp_path, {"P0": "", "P1": "gsd:0.1\n"}, filter_cfg=dict(filter_empty_gt=True))
