"""HRSC2016's layout, read by mmrotate's class and by ours."""

import re

import numpy as np
import pytest
import shapely
from mmrotate.datasets import HRSCDataset

from perception.datasets.hrsc import HrscShips
from perception.engine.errors import UserError

XML = """<?xml version="1.0" encoding="utf-8"?>
<HRSC_Image>
  <Img_ID>{name}</Img_ID>
  <Img_SizeWidth>{width}</Img_SizeWidth>
  <Img_SizeHeight>{height}</Img_SizeHeight>
  <Img_SizeDepth>3</Img_SizeDepth>
  <HRSC_Objects>{objects}</HRSC_Objects>
</HRSC_Image>"""
SHIP = """<HRSC_Object>
  <Object_ID>{number}</Object_ID><Class_ID>{kind}</Class_ID><truncated>0</truncated><difficult>0</difficult>
  <box_xmin>0</box_xmin><box_ymin>0</box_ymin><box_xmax>9</box_xmax><box_ymax>9</box_ymax>
  <mbox_cx>{cx}</mbox_cx><mbox_cy>{cy}</mbox_cy><mbox_w>{w}</mbox_w><mbox_h>{h}</mbox_h><mbox_ang>{angle}</mbox_ang>
  <header_x>{bow[0]}</header_x><header_y>{bow[1]}</header_y>
</HRSC_Object>"""
SHIPS = [(400.0, 300.0, 200.0, 40.0, 0.5), (900.0, 500.0, 120.0, 30.0, -1.2)]  # cx, cy, w, h, clockwise angle


@pytest.fixture
def root(tmp_path):
    for folder in ("FullDataSet/AllImages", "FullDataSet/Annotations", "ImageSets"):
        (tmp_path / folder).mkdir(parents=True)
    ships = "".join(
        SHIP.format(
            number=k,
            kind=f"1000000{5 + k:02d}",
            **dict(zip(("cx", "cy", "w", "h", "angle"), ship)),
            bow=[round(ship[0] + ship[2] / 2 * np.cos(ship[4])), round(ship[1] + ship[2] / 2 * np.sin(ship[4]))],
        )
        for k, ship in enumerate(SHIPS)
    )
    for name, objects in (("100000001", ships), ("100000002", ""), ("100000003", ships)):
        height = 30 if name == "100000003" else 700
        text = XML.format(name=name, width=1200, height=height, objects=objects)
        (tmp_path / "FullDataSet" / "Annotations" / f"{name}.xml").write_text(text)
    (tmp_path / "ImageSets" / "trainval.txt").write_text("100000001\n100000002\n100000003\n")
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path, text: path.unlink(), r"labels .*100000001\.xml cannot be read: No such file"),
        (lambda path, text: path.write_text(text[:-20]), r"labels .*100000001\.xml are not XML: "),
        (lambda path, text: path.write_text(text.replace("mbox_w", "width")), r"001\.xml are not of HRSC2016's format"),
        (
            lambda path, text: path.write_text(text.replace(">400.0<", ">left<")),
            r"001\.xml are not of HRSC2016's format",
        ),
    ],
)
def test_labels_that_cannot_be_read_are_named(root, change, message):
    path = root / "FullDataSet" / "Annotations" / "100000001.xml"
    change(path, path.read_text())
    with pytest.raises(UserError, match=message):
        build(HrscShips, root)


def test_images_of_another_suffix(root):
    (root / "FullDataSet" / "AllImages" / "100000001.jpg").touch()
    found = build(HrscShips, root)
    assert [found.get_data_info(k)["img_path"][-13:] for k in range(2)] == ["100000001.jpg", "100000002.bmp"]


@pytest.mark.parametrize("key", ["Img_SizeWidth", "Img_SizeHeight"])
@pytest.mark.parametrize("text", [None, "", "wide"])
def test_a_missing_size_is_told(root, key, text):
    path = root / "FullDataSet" / "Annotations" / "100000002.xml"
    new = "" if text is None else f"<{key}>{text}</{key}>"
    path.write_text(re.sub(f"<{key}>.*</{key}>", new, path.read_text()))
    with pytest.raises(UserError, match=rf"100000002\.xml has no whole number as {key}"):
        build(HrscShips, root)


def build(cls, root, **options):
    return cls(
        data_root=str(root),
        ann_file="ImageSets/trainval.txt",
        data_prefix={"sub_data_root": "FullDataSet/"},
        pipeline=[],
        **options,
    )


@pytest.mark.parametrize("classwise", [False, True])
def test_ships_are_where_their_files_say(root, classwise):
    dataset = build(HrscShips, root, classwise=classwise)
    assert len(dataset) == 3
    assert len(dataset.metainfo["classes"]) == (31 if classwise else 1)
    info = dataset.get_data_info(0)
    assert info["img_path"].endswith("FullDataSet/AllImages/100000001.bmp")
    for k, (item, ship) in enumerate(zip(info["instances"], SHIPS, strict=True)):
        cx, cy, w, h, angle = ship
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        expected = [(cx, cy) + a * w / 2 * along + b * h / 2 * across for a, b in [(-1, -1), (1, -1), (1, 1), (-1, 1)]]
        found, expected = shapely.Polygon(np.reshape(item["bbox"], (4, 2))), shapely.Polygon(expected)
        assert found.intersection(expected).area > 0.999 * found.union(expected).area
        # The bow lies on the middle of a short side.
        assert found.exterior.distance(shapely.Point(item["head"])) < 1
        if classwise:
            assert dataset.metainfo["classes_id"][item["bbox_label"]] == f"{5 + k:02d}"
        else:
            assert item["bbox_label"] == 0
    assert dataset.get_data_info(1)["instances"] == []


def test_the_height_is_the_height(root):
    """mmrotate's is the width, so that a strip of 30 pixels passes for a square."""
    assert build(HRSCDataset, root).get_data_info(0)["height"] == 1200
    info = build(HrscShips, root).get_data_info(0)
    assert (info["width"], info["height"]) == (1200, 700)
    usual = {"filter_empty_gt": True, "min_size": 32}
    assert len(build(HRSCDataset, root, filter_cfg=usual)) == 2
    assert len(build(HrscShips, root, filter_cfg=usual)) == 1
